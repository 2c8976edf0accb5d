"""List the libraries of this Python as a CycloneDX document: python infra/sbom.py > sbom.cdx.json

Needs nothing but Python. The hash of each file is in the lock that it was installed from (infra/locks).
"""

import json
import re
from importlib.metadata import Distribution, distributions


def component(library: Distribution) -> dict[str, object]:
    """A library with its name, version, licence and package URL."""
    name, version = library.metadata["Name"], library.version
    described: dict[str, object] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}",
    }
    # Some libraries put the whole text of their licence there: its first line is enough.
    licence = library.metadata.get("License-Expression") or library.metadata.get("License")
    if licence:
        described["licenses"] = [{"license": {"name": licence.strip().splitlines()[0][:100]}}]
    return described


def main() -> None:
    components = sorted(map(component, distributions()), key=lambda c: str(c["purl"]))
    document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
