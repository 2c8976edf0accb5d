/** The explanation of an answer: joints on the figure, seconds on a strip under it, the strongest in words. */

import type { Explanation } from "./api";
import { announce, byId, make } from "./dom";

export class Why {
  private readonly box = byId("why");
  private readonly strip = byId("why-strip");
  /** Legend of the side colours. It is hidden while the figure shows weights instead. */
  private readonly legend = byId("legend");

  /** `paint` colours the figure and marks the curves; null restores the side colours. */
  constructor(private readonly paint: (explanation: Explanation | null) => void) {
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
    byId("why-text").textContent = explanation.text;
    this.box.hidden = false;
    this.legend.hidden = true;
    this.paint(explanation);
    announce(explanation.text);
  }

  hide(): void {
    this.box.hidden = true;
    this.legend.hidden = false;
    this.paint(null);
  }
}
