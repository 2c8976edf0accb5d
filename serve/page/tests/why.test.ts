import { describe, expect, test } from "vitest";

import type { Explanation } from "../src/api";
import { explanationText } from "../src/why";

function explanation(joints: Record<string, number>, seconds: [number, number, number][]): Explanation {
  const joint_names = { knee_angle_r: "right knee angle", hip_flexion_l: "left hip flexion" };
  return { answer: { text: "stroke" }, joints, joint_names, seconds } as unknown as Explanation;
}

describe("explanationText", () => {
  test("an answer rests on positive weights only, however large the negative ones are", () => {
    const text = explanationText(
      explanation({ knee_angle_r: 0.1, hip_flexion_l: -0.9 }, [[0, 0.4, 0.2], [0.4, 0.5, -0.8]]),
    );
    expect(text).toBe("“stroke” rests most on right knee angle and 0.0 to 0.4 s. Against it: left hip flexion.");
  });

  test("the largest weights come first, at most three joints", () => {
    const text = explanationText(explanation({ a: 0.1, b: 0.4, c: 0.2, d: 0.3 }, [[0, 1, 0.1], [1, 2, 0.6]]));
    expect(text).toBe("“stroke” rests most on b, d, c and 1.0 to 2.0 s.");
  });

  test("without a positive weight nothing is said to support the answer", () => {
    const text = explanationText(explanation({ a: -0.1 }, [[0, 1, -0.2]]));
    expect(text).toBe("No part of the recording alone supports “stroke”. Against it: a.");
  });
});
