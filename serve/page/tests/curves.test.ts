import { describe, expect, test } from "vitest";

import type { JointCurve } from "../src/api";
import { curveText, cycleBand, cycleLines, cyclePercent, rangeOf, timeBands, timeLines } from "../src/curves";

const KNEE: JointCurve = {
  name: "knee", label: "Knee flexion", positive: "flexion",
  right: [0, 10, 60, 10, 0, 10, 60, 10, 0], left: null, middle: null,
  norm: { mean: [5, 60, 5], sd: [5, 5, 5], group: "healthy walkers", source: "a paper", verified: true },
};
const STRIDES = { right: [[0, 0.4], [0.4, 0.8]] as [number, number][], left: [] as [number, number][] };

test("over time a line has all frames, in seconds", () => {
  const [line] = timeLines(KNEE, 10);
  expect(line).toMatchObject({ side: "right", second: false });
  expect(line!.points.at(-1)).toEqual([0.8, 0]);
});

test("over the gait cycle each stride is a line from 0 to 100 %", () => {
  const lines = cycleLines(KNEE, STRIDES, 10);
  expect(lines).toHaveLength(2);
  for (const { points } of lines) expect(points.map(([x]) => Math.round(x))).toEqual([0, 25, 50, 75, 100]);
  expect(lines[0]!.points[2]![1]).toBe(60);
});

describe("bands of the norm", () => {
  test("lie over each stride of a recorded side", () => {
    const bands = timeBands(KNEE, STRIDES);
    expect(bands.map(({ side }) => side)).toEqual(["right", "right"]);
    expect(bands[1]!.points.map(([x]) => x)).toEqual([0.4, expect.closeTo(0.6), 0.8]);
    expect(bands[0]!.points[1]).toEqual([0.2, 55, 65]);
  });

  test("are one over the gait cycle, and none without a norm", () => {
    expect(cycleBand(KNEE)[0]!.points.map(([x]) => x)).toEqual([0, 50, 100]);
    expect(cycleBand({ ...KNEE, norm: null })).toEqual([]);
    expect(timeBands({ ...KNEE, norm: null }, STRIDES)).toEqual([]);
  });
});

test("a panel holds its curves and bands, and is at least 20 degrees high", () => {
  const [low, high] = rangeOf(timeLines(KNEE, 10), cycleBand(KNEE));
  expect(low).toBeLessThanOrEqual(0);
  expect(high).toBeGreaterThanOrEqual(65);
  const [flatLow, flatHigh] = rangeOf(timeLines({ ...KNEE, right: [3, 3] }, 10), []);
  expect(flatHigh - flatLow).toBeGreaterThanOrEqual(20);
});

test("the cursor of the gait cycle is where the player is in the side's stride", () => {
  expect(cyclePercent(STRIDES.right, 0.5)).toBeCloseTo(25);
  expect(cyclePercent(STRIDES.right, 0.9)).toBeNull();
});

test("a curve has a text for those who do not see it", () => {
  expect(curveText(KNEE)).toBe("Knee flexion (positive: flexion): right side 0 to 60 degrees; mean of healthy walkers 5 to 60 degrees.");
  expect(curveText({ ...KNEE, right: null, middle: [1, 2], norm: null }, "b.mot")).toBe("b.mot: Knee flexion (positive: flexion): 1 to 2 degrees; no norm.");
});
