import { describe, expect, test } from "vitest";

import type { Answer } from "../src/api";
import { answerTitle, certaintyText, conditionText, measuredLines } from "../src/chat";
import { taskTitle } from "../src/titles";

function answer(values: Partial<Answer>): Answer {
  return { low: null, high: null, unit: null, probabilities: {}, prediction_set: [], coverage_guaranteed: false, ...values } as Answer;
}

test("titles of tasks", () => {
  expect(taskTitle("fsst_time")).toBe("FSST time");
});

test("an answer says which task it is, or that it is none", () => {
  const none = { task: null, intent: null, generated: false };
  expect(answerTitle(answer({ ...none, task: "tug_time" }))).toBe("TUG time");
  expect(answerTitle(answer({ ...none, intent: "list" }))).toBe("What can be asked");
  expect(answerTitle(answer({ ...none, intent: "unclear" }))).toBe("No answer");
  expect(answerTitle(answer({ ...none, generated: true }))).toBe("Written by the language model, not checked");
});

test("a conditional answer says what it supposes", () => {
  const values = { status: "answered" as const, condition: "impaired: yes", applies: 0.9, label: "stroke", joint_probabilities: { stroke: 0.72 } };
  expect(conditionText(answer(values))).toBe("Supposes impaired: yes (90 %) · both together 72 %");
  expect(conditionText(answer({ ...values, label: null }))).toBe("Supposes impaired: yes (90 %)");
  expect(conditionText(answer({ ...values, status: "unlike" as const }))).toBe("");
  expect(conditionText(answer({ ...values, condition: "" }))).toBe("");
});

test("a measured value stands beside an answer of the model, with its steps, place and norm", () => {
  const norm = { mean: 1.37, sd: 0.19, group: "healthy adults", source: "a paper", verified: true };
  const speed = {
    quantity: "speed", label: "walking speed", part: "", value: 1.03, unit: "m/s", steps: 1, events: "steps",
    begin_s: 0.62, end_s: 1.31, norm, note: "", reason: "",
  };
  const line = "Measured from the joint angles: walking speed 1.03 m/s over 1 step (0.6 to 1.3 s); healthy adults: 1.37 (SD 0.19)";
  expect(measuredLines({ answered_by: "model", measured: [speed] })).toEqual([line]);
  expect(measuredLines({ answered_by: "kinematics", measured: [speed] })).toEqual([]);
  const absent = { ...speed, value: null, reason: "nobody walks" };
  expect(measuredLines({ answered_by: "model", measured: [absent] })).toEqual(["Not measured (walking speed): nobody walks"]);
  expect(measuredLines({ answered_by: "model", measured: [] })).toEqual([]);
});

describe("certaintyText", () => {
  test("labels have the words that answers have", () => {
    const values = { probabilities: { yes: 0.57, no: 0.43 }, prediction_set: ["yes", "no"], coverage_guaranteed: true };
    const words = { yes: "impaired", no: "unimpaired" };
    expect(certaintyText(answer(values), 0.9, words)).toBe("Nothing is ruled out.");
    expect(certaintyText(answer({ ...values, probabilities: { ...values.probabilities, maybe: 0 } }), 0.9, words)).toBe("Not ruled out: impaired, unimpaired");
  });

  test("an interval names the coverage of the server", () => {
    const speed = answer({ low: 1, high: 1.4, unit: "m/s", coverage_guaranteed: true });
    expect(certaintyText(speed, 0.9)).toBe("90 % interval: 1 to 1.4 m/s");
    expect(certaintyText(speed, 0.8)).toContain("80 %");
  });

  test("an interval without a guarantee says so", () => {
    expect(certaintyText(answer({ low: 1, high: 2 }), 0.9)).toBe("probably 1 to 2 (coverage not guaranteed)");
  });

  test("the prediction set is shown if its coverage is guaranteed", () => {
    const values = { probabilities: { yes: 0.57, no: 0.43, maybe: 0 }, prediction_set: ["yes", "no"] };
    expect(certaintyText(answer(values), 0.9)).toBe("");
    expect(certaintyText(answer({ ...values, coverage_guaranteed: true }), 0.9)).toBe("Not ruled out: yes, no");
  });
});
