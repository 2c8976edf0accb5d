/** Joint curves under the figure: over time with a cursor, or over the gait cycle, with the bands of the norm. */

import type { Explanation, JointCurve, Motion, Strides } from "./api";
import { byId, make, onChoice } from "./dom";

export type Side = "right" | "left" | "middle";
export const SIDES: Side[] = ["right", "left", "middle"];

/** A line of a panel: x and degrees of each point. */
export interface Line {
  side: Side;
  second: boolean;
  points: [number, number][];
}

/** A band of the norm: x, lower and upper edge. */
export interface Band {
  side: Side;
  points: [number, number, number][];
}

const WIDTH = 300;
const HEIGHT = 96;
const MIN_RANGE_DEG = 20;
const SVG = "http://www.w3.org/2000/svg";

/** Angles over time, in seconds. */
export function timeLines(curve: JointCurve, rate: number, second = false): Line[] {
  return SIDES.flatMap((side) => {
    const values = curve[side];
    return values ? [{ side, second, points: values.map((degrees, frame): [number, number] => [frame / rate, degrees]) }] : [];
  });
}

/** Angles over the gait cycle, in percent: a line for each stride of the side. */
export function cycleLines(curve: JointCurve, strides: Strides, rate: number, second = false): Line[] {
  return SIDES.flatMap((side) => {
    const values = curve[side];
    if (!values) return [];
    return strides[side === "left" ? "left" : "right"].map(([begin, end]) => {
      const points: [number, number][] = [];
      for (let frame = Math.max(Math.ceil(begin * rate), 0); frame <= Math.min(end * rate, values.length - 1); frame++) {
        points.push([(100 * (frame / rate - begin)) / (end - begin), values[frame]!]);
      }
      return { side, second, points };
    });
  });
}

/** The norm's mean +- 1 SD, laid over each stride in time. */
export function timeBands(curve: JointCurve, strides: Strides): Band[] {
  if (!curve.norm) return [];
  return (["right", "left"] as const).flatMap((side) =>
    curve[side] ? strides[side].map(([begin, end]) => ({ side, points: bandPoints(curve, (share) => begin + share * (end - begin)) })) : [],
  );
}

/** The norm's mean +- 1 SD over the gait cycle. */
export function cycleBand(curve: JointCurve): Band[] {
  return curve.norm ? [{ side: "middle", points: bandPoints(curve, (share) => 100 * share) }] : [];
}

function bandPoints({ norm }: JointCurve, at: (share: number) => number): [number, number, number][] {
  const { mean, sd } = norm!;
  return mean.map((middle, i) => [at(i / (mean.length - 1)), middle - sd[i]!, middle + sd[i]!]);
}

/** Lowest and highest degree of a panel. */
export function rangeOf(lines: Line[], bands: Band[]): [number, number] {
  const values = [...lines.flatMap(({ points }) => points.map(([, y]) => y)), ...bands.flatMap(({ points }) => points.flatMap(([, low, high]) => [low, high]))];
  const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 0];
  const margin = Math.max(0, MIN_RANGE_DEG - (high - low)) / 2 + 1;
  return [Math.floor(low - margin), Math.ceil(high + margin)];
}

/** Where in the gait cycle of a side a time is, in percent; null outside its strides. */
export function cyclePercent(strides: [number, number][], seconds: number): number | null {
  const stride = strides.find(([begin, end]) => begin <= seconds && seconds < end);
  return stride ? (100 * (seconds - stride[0])) / (stride[1] - stride[0]) : null;
}

/** A curve in words, for those who do not see it. */
export function curveText(curve: JointCurve, name = ""): string {
  const parts = SIDES.flatMap((side) => {
    const values = curve[side];
    if (!values?.length) return [];
    const sideName = side === "middle" ? "" : `${side} side `;
    return [`${sideName}${Math.round(Math.min(...values))} to ${Math.round(Math.max(...values))} degrees`];
  });
  const { norm } = curve;
  const band = norm
    ? `; mean of ${norm.group} ${Math.round(Math.min(...norm.mean))} to ${Math.round(Math.max(...norm.mean))} degrees`
    : "; no norm";
  return `${name ? `${name}: ` : ""}${curve.label} (positive: ${curve.positive}): ${parts.join(", ")}${band}.`;
}

interface Panel {
  curve: JointCurve;
  value: HTMLElement;
  cursors: Partial<Record<Side, SVGElement>>;
}

export class Curves {
  private readonly box = byId("curves");
  private readonly grid = byId("curve-grid");
  private readonly note = byId("curve-note");
  private motion: Motion | null = null;
  private second: Motion | null = null;
  private over: "time" | "cycle" = "time";
  private panels: Panel[] = [];
  private explanation: Explanation | null = null;
  private now = 0;

  constructor() {
    onChoice(byId("curve-axis"), (value) => {
      this.over = value as "time" | "cycle";
      this.draw();
    });
  }

  show(motion: Motion, second: Motion | null = null): void {
    this.motion = motion;
    this.second = second;
    this.explanation = null;
    const walks = motion.strides.right.length + motion.strides.left.length > 0;
    const cycle = byId("curve-axis").querySelector<HTMLInputElement>("input[value=cycle]")!;
    cycle.disabled = !walks;
    if (!walks && cycle.checked) byId("curve-axis").querySelector<HTMLInputElement>("input[value=time]")!.checked = true;
    if (!walks) this.over = "time";
    for (const [side, color] of Object.entries(motion.figure.colors)) this.box.style.setProperty(`--${side}`, color);
    this.draw();
  }

  /** Marks the seconds that an answer rests on. null: none. */
  mark(explanation: Explanation | null): void {
    this.explanation = explanation;
    this.draw();
  }

  /** Moves the cursor. seconds: time of the player. */
  seek(seconds: number): void {
    this.now = seconds;
    if (!this.motion) return;
    const { strides, figure } = this.motion;
    const frame = Math.round(seconds * figure.frame_rate_hz);
    for (const { curve, value, cursors } of this.panels) {
      for (const side of SIDES) {
        const cursor = cursors[side];
        if (!cursor) continue;
        const at = this.over === "time" ? seconds / this.duration() : (cyclePercent(strides[side === "left" ? "left" : "right"], seconds) ?? -10) / 100;
        cursor.setAttribute("transform", `translate(${(at * WIDTH).toFixed(1)} 0)`);
      }
      value.textContent = SIDES.flatMap((side) => {
        const degrees = curve[side]?.[frame];
        return degrees == null ? [] : [`${side === "middle" ? "" : side === "right" ? "R " : "L "}${Math.round(degrees)}°`];
      }).join("  ");
    }
  }

  private duration(): number {
    const length = ({ figure }: Motion) => Math.max(figure.positions_m.length - 1, 1) / figure.frame_rate_hz;
    return Math.max(length(this.motion!), this.second ? length(this.second) : 0);
  }

  private draw(): void {
    const { motion, second } = this;
    this.box.hidden = !motion || motion.curves.length === 0;
    if (!motion || this.box.hidden) return;
    this.panels = [];
    this.grid.replaceChildren(...motion.curves.map((curve) => this.panel(curve, second?.curves.find(({ name }) => name === curve.name))));
    const norm = motion.curves.find((curve) => curve.norm)?.norm;
    const drawn = norm && motion.strides.right.length + motion.strides.left.length > 0;
    const parts = [
      drawn ? `Band: mean ± 1 SD of ${norm.group}, one for all ages; ${norm.source}.` : "No band: the recording has no strides, or no norm is at hand.",
      second ? `Dashed: ${second.recording.name}.` : "",
      this.explanation && this.over === "cycle" ? "The marks of “Why” are on the curves over time." : "",
    ];
    this.note.textContent = parts.filter(Boolean).join(" ");
    this.seek(this.now);
  }

  private panel(curve: JointCurve, second?: JointCurve): HTMLElement {
    const motion = this.motion!;
    const rate = motion.figure.frame_rate_hz;
    const time = this.over === "time";
    const lines = time ? timeLines(curve, rate) : cycleLines(curve, motion.strides, rate);
    if (second) lines.push(...(time ? timeLines(second, rate, true) : cycleLines(second, this.second!.strides, rate, true)));
    const bands = time ? timeBands(curve, motion.strides) : cycleBand(curve);
    const [low, high] = rangeOf(lines, bands);
    const end = time ? this.duration() : 100;
    const x = (value: number) => ((value / end) * WIDTH).toFixed(1);
    const y = (value: number) => (((high - value) / (high - low)) * HEIGHT).toFixed(1);

    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    const other = second && this.second ? ` ${curveText(second, this.second.recording.name)}` : "";
    svg.setAttribute("aria-label", `${curveText(curve)}${other}`);
    const add = (tag: string, className: string, attributes: Record<string, string>) => {
      const node = document.createElementNS(SVG, tag);
      node.setAttribute("class", className);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      svg.append(node);
      return node;
    };
    if (time && this.explanation) {
      const most = Math.max(...this.explanation.seconds.map(([, , weight]) => Math.abs(weight)), 1e-9);
      for (const [begin, stop, weight] of this.explanation.seconds) {
        const width = String(Math.max(((Math.min(stop, end) - begin) / end) * WIDTH, 0));
        add("rect", weight < 0 ? "against" : "for", { x: x(begin), y: "0", width, height: String(HEIGHT), opacity: ((0.45 * Math.abs(weight)) / most).toFixed(2) });
      }
    }
    for (const band of bands) {
      const upper = band.points.map(([at, , top]) => `${x(at)},${y(top)}`);
      const lower = band.points.map(([at, bottom]) => `${x(at)},${y(bottom)}`).reverse();
      add("polygon", `band ${band.side}`, { points: [...upper, ...lower].join(" ") });
    }
    if (low < 0 && high > 0) add("line", "zero", { x1: "0", x2: String(WIDTH), y1: y(0), y2: y(0) });
    for (const line of lines) {
      add("polyline", `line ${line.side}${line.second ? " second" : ""}`, { points: line.points.map(([at, degrees]) => `${x(at)},${y(degrees)}`).join(" ") });
    }
    const cursors: Panel["cursors"] = {};
    for (const side of time ? (["middle"] as Side[]) : SIDES.filter((side) => curve[side])) {
      cursors[side] = add("line", `cursor ${time ? "now" : side}`, { x1: "0", x2: "0", y1: "0", y2: String(HEIGHT) });
    }

    const panel = make("figure", "panel-curve");
    const head = make("figcaption");
    const value = make("span", "curve-value");
    value.setAttribute("aria-hidden", "true");
    head.append(make("span", "curve-name", curve.label), make("span", "small", `+ ${curve.positive}`), value);
    const axis = make("div", "curve-axis small");
    axis.append(make("span", "", `${low}° to ${high}°`), make("span", "", time ? `0 to ${end.toFixed(1)} s` : "0 to 100 % of the gait cycle"));
    panel.append(head, svg, axis);
    this.panels.push({ curve, value, cursors });
    return panel;
  }
}
