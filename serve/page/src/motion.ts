/** A recording's positions as one flat array, with what the view needs to know about its extent. */

import type { Figure } from "./api";

export type Side = "right" | "left" | "middle";

export function sideOf(point: string): Side {
  if (point.endsWith("_r")) return "right";
  if (point.endsWith("_l")) return "left";
  return "middle";
}

const PATH_WINDOW_S = 1;
const FLOOR_QUANTILE = 0.05;

export class Motion3D {
  readonly points: string[];
  readonly bones: [number, number][];
  readonly colors: Figure["colors"];
  readonly frames: number;
  readonly rate: number;
  /** x, y, z of each point of each frame; not a number where the server sent none. */
  readonly xyz: Float32Array;
  /** x, z of the root of each frame, smoothed over a second: what a camera follows without swaying. */
  readonly path: Float32Array;
  readonly floor: number;
  readonly top: number;
  /** How far any point gets from the path, horizontally. */
  readonly reach: number;

  constructor(figure: Figure) {
    this.points = figure.points;
    this.bones = figure.bones;
    this.colors = figure.colors;
    this.frames = figure.positions_m.length;
    this.rate = figure.frame_rate_hz;
    this.xyz = flatten(figure);
    this.path = this.smoothPath();
    const lows: number[] = [];
    let top = -Infinity;
    let reach = 0;
    for (let frame = 0; frame < this.frames; frame++) {
      let low = Infinity;
      for (let point = 0; point < this.points.length; point++) {
        const at = this.at(frame, point);
        const [x, y, z] = [this.xyz[at]!, this.xyz[at + 1]!, this.xyz[at + 2]!];
        if (Number.isNaN(x + y + z)) continue;
        low = Math.min(low, y);
        top = Math.max(top, y);
        reach = Math.max(reach, Math.hypot(x - this.path[2 * frame]!, z - this.path[2 * frame + 1]!));
      }
      if (low < Infinity) lows.push(low);
    }
    lows.sort((a, b) => a - b);
    this.floor = lows[Math.floor(lows.length * FLOOR_QUANTILE)] ?? 0;
    this.top = Math.max(top, this.floor + 0.5);
    this.reach = Math.max(reach, 0.3);
  }

  at(frame: number, point: number): number {
    return 3 * (frame * this.points.length + point);
  }

  /** The corners of the whole path on the floor: x low, x high, z low, z high. */
  pathBounds(): [number, number, number, number] {
    const bounds: [number, number, number, number] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let frame = 0; frame < this.frames; frame++) {
      const [x, z] = [this.path[2 * frame]!, this.path[2 * frame + 1]!];
      bounds[0] = Math.min(bounds[0], x);
      bounds[1] = Math.max(bounds[1], x);
      bounds[2] = Math.min(bounds[2], z);
      bounds[3] = Math.max(bounds[3], z);
    }
    return bounds;
  }

  /** Which way the person faces around a frame, in radians from X towards Z, from the line between the hips. */
  heading(frame: number): number {
    const [right, left] = [this.points.indexOf("hip_r"), this.points.indexOf("hip_l")];
    if (right < 0 || left < 0) return 0;
    const half = Math.round((PATH_WINDOW_S * this.rate) / 2);
    let [x, z] = [0, 0];
    for (let near = Math.max(frame - half, 0); near <= Math.min(frame + half, this.frames - 1); near++) {
      const [r, l] = [this.at(near, right), this.at(near, left)];
      x += (this.xyz[r + 2]! - this.xyz[l + 2]!) || 0;
      z -= (this.xyz[r]! - this.xyz[l]!) || 0;
    }
    return Math.atan2(z, x);
  }

  private smoothPath(): Float32Array {
    const root = Math.max(this.points.indexOf("pelvis"), 0);
    const sums = new Float64Array(2 * (this.frames + 1));
    let [x, z] = [0, 0];
    for (let frame = 0; frame < this.frames; frame++) {
      const at = this.at(frame, root);
      if (!Number.isNaN(this.xyz[at]! + this.xyz[at + 2]!)) [x, z] = [this.xyz[at]!, this.xyz[at + 2]!];
      sums[2 * frame + 2] = sums[2 * frame]! + x;
      sums[2 * frame + 3] = sums[2 * frame + 1]! + z;
    }
    const path = new Float32Array(2 * this.frames);
    const half = Math.round((PATH_WINDOW_S * this.rate) / 2);
    for (let frame = 0; frame < this.frames; frame++) {
      const side = Math.min(half, frame, this.frames - 1 - frame);
      const [from, to] = [frame - side, frame + side + 1];
      path[2 * frame] = (sums[2 * to]! - sums[2 * from]!) / (to - from);
      path[2 * frame + 1] = (sums[2 * to + 1]! - sums[2 * from + 1]!) / (to - from);
    }
    return path;
  }
}

function flatten(figure: Figure): Float32Array {
  const points = figure.points.length;
  const xyz = new Float32Array(figure.positions_m.length * points * 3);
  let at = 0;
  for (const frame of figure.positions_m) {
    for (let point = 0; point < points; point++) {
      for (let axis = 0; axis < 3; axis++) xyz[at++] = frame[point]?.[axis] ?? NaN;
    }
  }
  return xyz;
}
