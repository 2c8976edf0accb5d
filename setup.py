"""Which folders the package consists of; everything else about it stands in pyproject.toml.

The package lies in platform/, the server and the settings files beside it. `serve` is a package of its own.
`configs` is installed inside the package, so that an installation has the tasks and experiments too.
"""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    packages=[
        *find_packages("platform"),
        *find_namespace_packages(include=["serve*"], exclude=["serve.page*"]),
        "biomechgpt.configs",
        *(f"biomechgpt.configs.{name}" for name in find_namespace_packages("configs")),
    ],
    package_dir={"": "platform", "serve": "serve", "biomechgpt.configs": "configs"},
    package_data={
        "biomechgpt": ["*.j2", "*.yaml", "*.txt", "py.typed"],
        "": ["*.j2", "*.yaml", "*.json", "*.txt", "*.html", "*.svg", "*.md", "*.js", "*.css"],
    },
    include_package_data=False,
)
