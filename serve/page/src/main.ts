/** Starts the page and connects its parts. */

import "./style.css";

import { Api, busyText, type Figure, type ModelInfo, type ModelSummary, type RecordingInfo, wordsOf } from "./api";
import { Chat } from "./chat";
import { byId, make, onChoice, showText } from "./dom";
import { FigureView, type ViewName } from "./figure";
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

const player = new Player((frame) => view?.pose(frame));
const view = openView();
const why = new Why((points) => view?.emphasize(points));
const chat = new Chat(
  api,
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
  (loaded) => {
    showMotion(loaded);
    chat.use(loaded);
  },
);

onChoice(byId("views"), (name) => view?.setView(name as ViewName));
byId<HTMLInputElement>("follow").addEventListener("change", (event) =>
  view?.setFollow((event.target as HTMLInputElement).checked),
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
}

function showBanner(model: ModelSummary): void {
  const parts = [`Model trained on ${model.data} data`, `base model: ${model.base}`, `model ${model.fingerprint.slice(0, 8)}`];
  showText(banner, `${parts.join(" · ")} · no clinical claim, not a medical device`);
  banner.title = `Model fingerprint ${model.fingerprint}`;
}

/** The figure. A browser that cannot draw in 3D shows a note instead; the questions work without it. */
function openView(): FigureView | null {
  try {
    return new FigureView(stage, (seconds) => player.tick(seconds), () => chooseView(null));
  } catch (reason) {
    console.warn(reason);
    showNote("This browser cannot draw in 3D. You can still ask questions.");
    return null;
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

function showMotion({ motion: { recording, figure } }: Loaded): void {
  showRecording(recording);
  showSideColors(figure);
  why.hide();
  if (view) {
    const motion = new Motion3D(figure);
    const drawable = motion.frames > 0 && motion.points.length > 0;
    if (drawable) view.show(motion, "angled");
    else view.clear();
    showNote(drawable ? "" : "This recording has no figure to show.");
    chooseView("angled");
    byId<HTMLFieldSetElement>("views").disabled = byId<HTMLInputElement>("follow").disabled = !drawable;
    player.load(motion.frames, motion.rate);
    stage.tabIndex = 0;
    stage.setAttribute("role", "application");
    stage.setAttribute(
      "aria-label",
      `Stick figure of ${recording.name}. Arrow keys turn it, plus and minus zoom, space plays and pauses.`,
    );
  }
  stage.closest("section")?.scrollIntoView({ block: "nearest" });
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
