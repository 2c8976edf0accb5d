/** What an answer rests on: joints on the figure, seconds on a strip under it, the strongest in words. */

import type { Explanation } from "./api";
import { announce, byId, make } from "./dom";

const MOST_NAMED = 3;

export class Why {
  private readonly box = byId("why");
  private readonly strip = byId("why-strip");
  /** Of the figure's own colours, which it has not while something is explained. */
  private readonly legend = byId("legend");

  /** `paint` colours the figure's points, or gives them their own colours back. */
  constructor(private readonly paint: (points: Record<string, number> | null) => void) {
    byId("why-close").addEventListener("click", () => this.hide());
  }

  /** seconds: how long the recording is; the strip is as long. */
  show(told: Explanation, seconds: number): void {
    const most = Math.max(...told.seconds.map(([, , weight]) => Math.abs(weight)), 1e-9);
    this.strip.replaceChildren(
      ...told.seconds.map(([begin, end, weight]) => {
        const part = make("i", weight < 0 ? "against" : "for");
        part.style.left = `${(100 * begin) / seconds}%`;
        part.style.width = `${(100 * Math.min(end - begin, seconds - begin)) / seconds}%`;
        part.style.opacity = String(Math.abs(weight) / most);
        part.title = `${begin.toFixed(1)} to ${end.toFixed(1)} s`;
        return part;
      }),
    );
    const text = `“${told.answer.text}” rests most on ${strongest(told)}.`;
    byId("why-text").textContent = text;
    this.box.hidden = false;
    this.legend.hidden = true;
    this.paint(told.points);
    announce(text);
  }

  hide(): void {
    this.box.hidden = true;
    this.legend.hidden = false;
    this.paint(null);
  }
}

function strongest({ joints, seconds }: Explanation): string {
  const names = Object.entries(joints)
    .sort(([, a], [, b]) => Math.abs(b) - Math.abs(a))
    .slice(0, MOST_NAMED)
    .map(([name]) => jointWords(name));
  const [begin, end] = [...seconds].sort(([, , a], [, , b]) => Math.abs(b) - Math.abs(a))[0] ?? [0, 0];
  return `${names.join(", ")}, and on ${begin.toFixed(1)} to ${end.toFixed(1)} s`;
}

/** "knee_angle_r" -> "right knee angle". */
function jointWords(name: string): string {
  const side = name.endsWith("_r") ? "right " : name.endsWith("_l") ? "left " : "";
  return side + name.replace(/_[rl]$/, "").replaceAll("_", " ");
}
