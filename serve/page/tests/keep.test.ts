import { expect, test } from "vitest";

import type { Answer } from "../src/api";
import { cellText } from "../src/batch";
import { barsOf, scaleOf } from "../src/certainty";
import { cell, csvOf, nameOf } from "../src/download";

function answer(values: Partial<Answer>): Answer {
  return {
    task: "walking_speed", question: "How fast?", status: "answered", text: "1.1 m/s", label: null, value: 1.1, unit: "m/s", low: 0.9, high: 1.4,
    coverage_guaranteed: true, probabilities: {}, prediction_set: [], measured: [], refused: false, uncertain: false, ...values,
  } as Answer;
}

const MEASURED = { quantity: "speed", label: "walking speed", part: "", value: 1.03, unit: "m/s", norm: { mean: 1.4, sd: 0.2, group: "adults", source: "", verified: true } };

test("an interval is drawn with the measured value and the norm, all on one scale", () => {
  const scale = scaleOf(answer({ measured: [MEASURED] as unknown as Answer["measured"] }))!;
  expect(scale).toMatchObject({ low: 0.9, high: 1.4, value: 1.1, measured: 1.03 });
  expect(scale.from).toBeLessThan(0.9);
  expect(scale.to).toBeGreaterThan(1.6);
  expect(scaleOf(answer({ low: null }))).toBeNull();
});

test("a measured value in another unit is not drawn beside an answer", () => {
  expect(scaleOf(answer({ measured: [{ ...MEASURED, unit: "s" }] as unknown as Answer["measured"] }))!.measured).toBeNull();
});

test("bars have the words of labels, and mark those that are not ruled out", () => {
  const bars = barsOf(answer({ probabilities: { yes: 0.6, no: 0.4 }, prediction_set: ["yes"] }), { yes: "impaired" });
  expect(bars).toEqual([{ label: "impaired", probability: 0.6, possible: true }, { label: "no", probability: 0.4, possible: false }]);
  expect(barsOf(answer({ probabilities: { yes: 1 }, prediction_set: ["yes"], coverage_guaranteed: false }))[0]!.possible).toBe(false);
});

test("a table of answers has one line each, and quotes text", () => {
  const [head, line] = csvOf([{ recording: "a,b.mot", answer: answer({ text: 'say "fast"' }), data: "synthetic" }]).split("\r\n");
  expect(head!.split(",")[0]).toBe("recording");
  expect(line).toContain('"a,b.mot",walking_speed,How fast?,answered,"say ""fast"""');
  expect(line!.endsWith(",synthetic")).toBe(true);
});

test("a spreadsheet runs no text of a file", () => {
  expect(cell("=HYPERLINK(1)")).toBe("'=HYPERLINK(1)");
  expect(cell(-1.5)).toBe("-1.5");
  expect(cell(null)).toBe("");
});

test("downloads are named after the recording", () => {
  expect(nameOf("walk.mot", "csv")).toBe("walk-answers.csv");
  expect(nameOf("", "csv")).toBe("recording-answers.csv");
});

test("a cell says the answer, or why there is none", () => {
  expect(cellText(answer({}))).toBe("1.1 m/s (0.9 to 1.4)");
  expect(cellText(answer({ value: null, low: null, high: null, label: "yes", probabilities: { yes: 0.57 } }))).toBe("yes 57 %");
  expect(cellText(answer({ refused: true, status: "does_not_apply" }))).toBe("does not apply");
  expect(cellText(answer({ refused: true, status: "unlike" }))).toBe("unlike the training data");
  expect(cellText(undefined)).toBe("–");
});
