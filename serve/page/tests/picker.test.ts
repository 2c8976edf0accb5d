import { expect, test } from "vitest";

import { acceptOf, suffixesText } from "../src/picker";

test("the file dialog offers the suffixes of the server", () => {
  expect(acceptOf([".mot", ".c3d"], false)).toBe(".mot,.c3d");
});

test("a phone offers every file, because it does not know the suffixes", () => {
  expect(acceptOf([".mot", ".c3d"], true)).toBe("");
});

test("the help text names the suffixes", () => {
  expect(suffixesText([".mot", ".c3d"])).toContain(".mot, .c3d");
  expect(suffixesText([])).toBe("");
});
