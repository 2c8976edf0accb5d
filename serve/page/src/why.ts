/** The explanation of an answer: joints on the figure, seconds on a strip under it, the strongest in words. */

import type { Explanation } from "./api";
import { announce, byId, make } from "./dom";

const MAX_NAMED = 3;

export class Why {
  private readonly box = byId("why");
  private readonly strip = byId("why-strip");
  /** Legend of the side colours. It is hidden while the figure shows weights instead. */
  private readonly legend = byId("legend");

  /** `paint` colours the figure's points by weight; null restores the side colours. */
  constructor(private readonly paint: (points: Record<string, number> | null) => void) {
    byId("why-close").addEventListener("click", () => this.hide());
  }

  /** seconds: duration of the recording, which is the length of the strip. */
  show(explanation: Explanation, seconds: number): void {
    const most = Math.max(...explanation.seconds.map(([, , weight]) => Math.abs(weight)), 1e-9);
    this.strip.replaceChildren(
      ...explanation.seconds.map(([begin, end, weight]) => {
        const part = make("i", weight < 0 ? "against" : "for");
        part.style.left = `${(100 * begin) / seconds}%`;
        part.style.width = `${(100 * Math.min(end - begin, seconds - begin)) / seconds}%`;
        part.style.opacity = String(Math.abs(weight) / most);
        part.title = `${begin.toFixed(1)} to ${end.toFixed(1)} s`;
        return part;
      }),
    );
    const text = explanationText(explanation);
    byId("why-text").textContent = text;
    this.box.hidden = false;
    this.legend.hidden = true;
    this.paint(explanation.points);
    announce(text);
  }

  hide(): void {
    this.box.hidden = true;
    this.legend.hidden = false;
    this.paint(null);
  }
}

/** In words: the joints and seconds that support an answer, and those that speak against it. */
export function explanationText({ answer, joints, joint_names, seconds }: Explanation): string {
  const weights = Object.entries(joints).map(([joint, weight]): [string, number] => [joint_names[joint] ?? joint, weight]);
  const supporting = strongest(weights.filter(([, weight]) => weight > 0));
  const opposing = strongest(weights.filter(([, weight]) => weight < 0));
  const best = seconds.filter(([, , weight]) => weight > 0).sort(([, , a], [, , b]) => b - a)[0];
  const reasons = [...supporting];
  if (best) reasons.push(`${best[0].toFixed(1)} to ${best[1].toFixed(1)} s`);
  const sentences = [
    reasons.length > 0 ? `“${answer.text}” rests most on ${listed(reasons)}.` : `No part of the recording alone supports “${answer.text}”.`,
  ];
  if (opposing.length > 0) sentences.push(`Against it: ${listed(opposing)}.`);
  return sentences.join(" ");
}

/** Names of the joints with the largest weights, positive or negative. */
function strongest(weights: [string, number][]): string[] {
  return weights
    .sort(([, a], [, b]) => Math.abs(b) - Math.abs(a))
    .slice(0, MAX_NAMED)
    .map(([name]) => name);
}

function listed(words: string[]): string {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
