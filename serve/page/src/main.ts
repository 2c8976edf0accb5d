/** Starts the page and connects its parts. */

import "./style.css";

import { Api, busyText, type Explanation, type Figure, type ModelInfo, type ModelSummary, type RecordingInfo, wordsOf } from "./api";
import { Batch } from "./batch";
import { Chat } from "./chat";
import { Curves } from "./curves";
import { byId, make, onChoice, showText } from "./dom";
import type { FigureView, ViewName } from "./figure";
import { Keys } from "./key";
import { Motion3D } from "./motion";
import { type Loaded, Picker } from "./picker";
import { Player } from "./player";
import { Why } from "./why";

const keys = new Keys();
const api = new Api(keys);
const banner = byId("banner");
const stage = byId("figure");
const stageNote = byId("stage-note");

/** The figures: of the recording, and of the second one beside it. Their code comes after the first picture of the page. */
const views: { first: FigureView | null; second: FigureView | null } = { first: null, second: null };
let loaded: { first: Loaded | null; second: Loaded | null } = { first: null, second: null };

const curves = new Curves();
const player = new Player((frame, seconds) => {
  views.first?.pose(frame);
  views.second?.pose(frame);
  curves.seek(seconds);
});
const why = new Why((explanation: Explanation | null) => {
  views.first?.emphasize(explanation?.points ?? null);
  curves.mark(explanation);
  curves.seek(player.now);
});
const chat = new Chat(
  api,
  () => picker.person,
  (model) => {
    showBanner(model);
    why.hide(); // it explained an earlier answer
  },
  (explanation) => why.show(explanation, player.seconds),
);
const picker = new Picker(
  api,
  (loading) => {
    chat.setPaused(loading);
    stage.setAttribute("aria-busy", String(loading));
  },
  (chosen, beside) => void use(beside && loaded.first ? { first: loaded.first, second: chosen } : { first: chosen, second: null }),
  (files) => void batch.show(files, picker.person),
);
const batch = new Batch(api, (file) => picker.take([file]));
const drawing = openViews();
const dark = matchMedia("(prefers-color-scheme: dark)");

dark.addEventListener("change", () => eachView((view) => view.setDark(dark.matches)));
addEventListener("beforeprint", () => showPrinted(true));
addEventListener("afterprint", () => showPrinted(false));
byId("close-second").addEventListener("click", () => loaded.first && void use({ first: loaded.first, second: null }));
onChoice(byId("views"), (name) => eachView((view) => view.setView(name as ViewName)));
byId<HTMLInputElement>("follow").addEventListener("change", (event) =>
  eachView((view) => view.setFollow((event.target as HTMLInputElement).checked)),
);
byId("retry").addEventListener("click", () => void start());
keys.onChange(() => void start());
void start();

/** Reads the model and the examples from the server. */
async function start(): Promise<void> {
  byId("retry").hidden = true;
  const patience = { onBusy: (left: number) => showText(banner, `${busyText(left)} No clinical claim.`) };
  // The model is shown as soon as it is there: a server that has just started needs seconds for its examples.
  const [model, examples] = await Promise.allSettled([
    api.model(patience).then(introduce),
    api.examples().then((listed) => picker.showExamples(listed)),
  ]);
  if (model.status === "rejected") {
    showText(banner, `The model’s description is missing: ${wordsOf(model.reason)} No clinical claim, not a medical device.`);
  }
  if (examples.status === "rejected") picker.showExamplesNote(`The examples could not be listed: ${wordsOf(examples.reason)}`);
  byId("retry").hidden = model.status === "fulfilled" && examples.status === "fulfilled";
}

function introduce(model: ModelInfo): void {
  showBanner(model);
  picker.setSuffixes(model.suffixes);
  chat.introduce(model);
  batch.introduce(model);
}

function showBanner(model: ModelSummary): void {
  const parts = [`Model trained on ${model.data} data`, `base model: ${model.base}`, `model ${model.fingerprint.slice(0, 8)}`];
  showText(banner, `${parts.join(" · ")} · no clinical claim, not a medical device`);
  banner.title = `Model fingerprint ${model.fingerprint}`;
}

/** The figures. A browser that cannot draw in 3D shows a note instead; the questions work without them. */
async function openViews(): Promise<void> {
  // The page is painted before the large code of the figure is read.
  await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted)));
  const { FigureView } = await import("./figure");
  try {
    views.first = new FigureView(stage, (seconds) => player.tick(seconds), () => chooseView(null));
    views.second = new FigureView(byId("figure-second"), () => {}, () => chooseView(null));
    eachView((view) => view.setDark(dark.matches));
  } catch (reason) {
    console.warn(reason);
    views.first = null;
    showNote("This browser cannot draw in 3D. You can still ask questions.");
  }
}

function eachView(act: (view: FigureView) => void): void {
  for (const view of [views.first, views.second]) if (view) act(view);
}

/** Paper gets pictures of the figures: their canvas would print empty. */
function showPrinted(on: boolean): void {
  for (const image of document.querySelectorAll(".printed")) image.remove();
  if (!on) return;
  const shown: [FigureView | null, HTMLElement, boolean][] = [
    [views.first, stage, loaded.first !== null],
    [views.second, byId("figure-second"), loaded.second !== null],
  ];
  for (const [view, place, drawn] of shown) {
    if (!view || !drawn) continue;
    const image = make("img", "printed");
    image.src = view.picture();
    image.alt = place.getAttribute("aria-label") ?? "Stick figure";
    place.append(image);
  }
}

function showNote(text: string): void {
  stageNote.hidden = text === "";
  stageNote.replaceChildren(make("p", "", text));
}

/** Marks the chosen view; none after the user has turned the figure. */
function chooseView(name: ViewName | null): void {
  for (const input of byId("views").querySelectorAll("input")) input.checked = input.value === name;
}

/** Shows a recording, or two side by side, and asks about them from now on. */
async function use(chosen: { first: Loaded; second: Loaded | null }): Promise<void> {
  loaded = chosen;
  chat.use(chosen.first, chosen.second);
  await drawing;
  const { first, second } = chosen;
  const beside = byId<HTMLInputElement>("beside");
  beside.disabled = false;
  byId("stages").classList.toggle("two", second !== null);
  byId("stage-second").hidden = second === null;
  byId("name-first").hidden = second === null;
  byId("name-first").textContent = `A: ${first.motion.recording.name}`;
  byId("name-second").textContent = second ? `B: ${second.motion.recording.name}` : "";
  showRecording(first.motion.recording);
  showSideColors(first.motion.figure);
  why.hide();
  const drawn = showFigure(views.first, stage, first);
  if (second) showFigure(views.second, byId("figure-second"), second);
  else views.second?.clear();
  curves.show(first.motion, second?.motion ?? null);
  if (views.first) showNote(drawn ? "" : "This recording has no figure to show.");
  chooseView("angled");
  byId<HTMLFieldSetElement>("views").disabled = byId<HTMLInputElement>("follow").disabled = !drawn;
  const frames = (of: Loaded | null) => of?.motion.figure.positions_m.length ?? 0;
  player.load(Math.max(frames(first), frames(second)), first.motion.figure.frame_rate_hz);
  stage.closest("section")?.scrollIntoView({ block: "nearest" });
}

/** Shows the figure of a recording; whether there is one to show. */
function showFigure(view: FigureView | null, place: HTMLElement, { motion: { recording, figure } }: Loaded): boolean {
  const motion = new Motion3D(figure);
  const drawable = motion.frames > 0 && motion.points.length > 0;
  if (!view) return false;
  if (drawable) view.show(motion, "angled");
  else view.clear();
  place.tabIndex = 0;
  place.setAttribute("role", "application");
  place.setAttribute("aria-label", `Stick figure of ${recording.name}. Arrow keys turn it, plus and minus zoom, space plays and pauses.`);
  return drawable;
}

/** Colours of the legend: those of the figure. */
function showSideColors({ colors }: Figure): void {
  const legend = byId("legend");
  for (const [side, color] of Object.entries(colors)) legend.style.setProperty(`--${side}`, color);
}

function showRecording(recording: RecordingInfo): void {
  const entries: [string, string][] = [
    ["Name", recording.name],
    ["Duration", `${recording.duration_s.toFixed(1)} s`],
    ["Frame rate", `${Number(recording.frame_rate_hz.toFixed(2))} Hz`],
    ["Knee flexion in the file", `knee flexion: ${recording.knee_flexion} angles in the file`],
  ];
  const { used_s } = recording;
  if (used_s < recording.duration_s - 0.05) entries.push(["Read by the model", `model reads the first ${used_s.toFixed(1)} s`]);
  byId("facts").replaceChildren(
    ...entries.map(([name, value]) => {
      const row = make("div");
      row.append(make("dt", "hidden", name), make("dd", "", value));
      return row;
    }),
  );
  const missing = recording.missing_joints;
  byId("missing").hidden = missing.length === 0;
  byId("missing-count").textContent = missing.length === 1 ? "1 joint is missing" : `${missing.length} joints are missing`;
  byId("missing-names").textContent = missing.join(", ");
}
