/** Playback: a clock in frames, and the controls under the figure. */

import { byId, onChoice } from "./dom";

export class Player {
  private frames = 0;
  private rate = 30;
  private frame = 0;
  private speed = 1;
  private playing = false;
  private readonly stage = byId("figure");
  private readonly button = byId<HTMLButtonElement>("play");
  private readonly scrub = byId<HTMLInputElement>("scrub");
  private readonly time = byId<HTMLOutputElement>("time");

  /** `pose` shows a frame, which may lie between two recorded ones. */
  constructor(private readonly pose: (frame: number, seconds: number) => void) {
    this.button.addEventListener("click", () => this.setPlaying(!this.playing));
    this.scrub.addEventListener("input", () => {
      this.setPlaying(false);
      this.seek(Number(this.scrub.value));
    });
    this.stage.addEventListener("keydown", (event) => {
      if (event.key !== " " || this.frames < 2) return;
      event.preventDefault();
      this.setPlaying(!this.playing);
    });
    onChoice(byId("speeds"), (value) => (this.speed = Number(value)));
  }

  /** How long the recording is. */
  get seconds(): number {
    return Math.max(this.frames - 1, 1) / this.rate;
  }

  /** The time that is shown, in seconds. */
  get now(): number {
    return this.frame / this.rate;
  }

  load(frames: number, rate: number): void {
    this.frames = frames;
    this.rate = rate;
    this.scrub.max = String(Math.max(frames - 1, 0));
    const moving = frames > 1;
    this.button.disabled = this.scrub.disabled = byId<HTMLFieldSetElement>("speeds").disabled = !moving;
    this.seek(0);
    this.setPlaying(moving && !matchMedia("(prefers-reduced-motion: reduce)").matches);
  }

  tick(seconds: number): void {
    if (!this.playing) return;
    const last = this.frames - 1;
    const frame = this.frame + seconds * this.rate * this.speed;
    this.seek(frame > last ? (frame - last) % last : frame);
  }

  private seek(frame: number): void {
    this.frame = frame;
    const whole = String(Math.floor(frame));
    if (this.stage.dataset.frame !== whole) this.stage.dataset.frame = this.scrub.value = whole;
    const [now, end] = [frame / this.rate, Math.max(this.frames - 1, 0) / this.rate];
    this.time.textContent = `${now.toFixed(2)} / ${end.toFixed(2)} s`;
    if (!this.playing) this.scrub.setAttribute("aria-valuetext", `${now.toFixed(2)} of ${end.toFixed(2)} seconds`);
    this.pose(frame, now);
  }

  private setPlaying(playing: boolean): void {
    this.playing = playing;
    this.stage.dataset.state = playing ? "playing" : "paused";
    this.button.classList.toggle("playing", playing);
    this.button.setAttribute("aria-label", playing ? "Pause" : "Play");
    this.button.title = playing ? "Pause" : "Play";
  }
}
