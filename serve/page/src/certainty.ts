/** The certainty of an answer as a drawing: probability bars, or an interval with the measured value. */

import type { Answer } from "./api";
import { make } from "./dom";

const MOST_BARS = 6;

export interface Bar {
  label: string;
  probability: number;
  /** Whether the label is in the prediction set, if that is guaranteed. */
  possible: boolean;
}

/** Bars of the most probable labels. words: of the task's labels. */
export function barsOf({ probabilities, prediction_set, coverage_guaranteed }: Answer, words: Record<string, string> = {}): Bar[] {
  return Object.entries(probabilities)
    .slice(0, MOST_BARS)
    .map(([label, probability]) => ({
      label: words[label] ?? label,
      probability,
      possible: coverage_guaranteed && prediction_set.includes(label),
    }));
}

export interface Scale {
  low: number;
  high: number;
  value: number | null;
  measured: number | null;
  norm: { mean: number; sd: number; group: string } | null;
  from: number;
  to: number;
}

/** What an interval is drawn with: the interval, the stated and the measured value, the norm, and the ends of the scale. */
export function scaleOf({ low, high, value, unit, measured }: Answer): Scale | null {
  if (low === null || high === null) return null;
  const beside = measured.find((one) => one.value != null && one.unit === (unit ?? ""));
  const norm = beside?.norm ? { mean: beside.norm.mean, sd: beside.norm.sd, group: beside.norm.group } : null;
  const marks = [low, high, value, beside?.value, norm && norm.mean - norm.sd, norm && norm.mean + norm.sd].filter((mark): mark is number => mark != null);
  const [least, most] = [Math.min(...marks), Math.max(...marks)];
  const margin = 0.08 * (most - least) || 0.5;
  return { low, high, value, measured: beside?.value ?? null, norm, from: least - margin, to: most + margin };
}

/** The drawing; null for an answer without probabilities or an interval. */
export function certaintyDrawing(answer: Answer, words: Record<string, string> = {}): HTMLElement | null {
  const scale = scaleOf(answer);
  if (scale) return intervalDrawing(scale, answer.unit ?? "");
  const bars = barsOf(answer, words);
  return bars.length > 0 ? barDrawing(bars) : null;
}

function barDrawing(bars: Bar[]): HTMLElement {
  const list = make("ul", "bars");
  list.setAttribute("aria-label", "Probability of each answer");
  for (const { label, probability, possible } of bars) {
    const item = make("li", possible ? "possible" : "");
    const percent = `${Math.round(100 * probability)} %`;
    const track = make("span", "bar-track");
    track.setAttribute("aria-hidden", "true");
    const fill = make("i");
    fill.style.width = `${100 * probability}%`;
    track.append(fill);
    item.append(make("span", "bar-label", label), track, make("span", "bar-percent", percent));
    if (possible) item.append(make("span", "hidden", "not ruled out"));
    list.append(item);
  }
  return list;
}

function intervalDrawing({ low, high, value, measured, norm, from, to }: Scale, unit: string): HTMLElement {
  const at = (number: number) => `${(100 * (number - from)) / (to - from)}%`;
  const span = (begin: number, end: number) => `${(100 * (end - begin)) / (to - from)}%`;
  const box = make("div", "interval");
  const track = make("div", "interval-track");
  track.setAttribute("role", "img");
  const words = [
    value == null ? "" : `answer ${value} ${unit}`.trim(),
    `interval ${low} to ${high}`,
    measured == null ? "" : `measured ${measured}`,
    norm ? `${norm.group}: ${round(norm.mean - norm.sd)} to ${round(norm.mean + norm.sd)} (mean ± 1 SD)` : "",
  ];
  track.setAttribute("aria-label", words.filter(Boolean).join("; "));
  const place = (className: string, left: number, right?: number) => {
    const mark = make("i", className);
    mark.style.left = at(left);
    if (right !== undefined) mark.style.width = span(left, right);
    track.append(mark);
  };
  if (norm) place("norm", norm.mean - norm.sd, norm.mean + norm.sd);
  place("range", low, high);
  if (measured != null) place("measured", measured);
  if (value != null) place("value", value);
  box.append(track);
  const key = make("div", "interval-key small");
  key.setAttribute("aria-hidden", "true");
  const entry = (className: string, text: string) => {
    const part = make("span");
    part.append(make("i", className), document.createTextNode(text));
    key.append(part);
  };
  if (value != null) entry("value", `answer ${value}`);
  if (measured != null) entry("measured", `measured ${measured}`);
  if (norm) entry("norm", "norm ± 1 SD");
  box.append(key);
  return box;
}

function round(number: number): number {
  return Number(number.toPrecision(3));
}
