/** The conversation about the loaded recording. */

import { type Answer, type Answers, type Api, busyText, type ChatMessage, type Explanation, type ModelInfo, type ModelSummary, type Patience, type Person, type StatedParameter, type Problem, problemOf } from "./api";
import { certaintyDrawing } from "./certainty";
import { announce, byId, make, showProblem } from "./dom";
import { csvOf, nameOf, type Row, save } from "./download";
import type { Loaded } from "./picker";
import { taskTitle } from "./titles";

const MAX_HISTORY = 20;

export class Chat {
  private loaded: Loaded | null = null;
  /** The recording that the loaded one is compared with. */
  private second: Loaded | null = null;
  private tasks: ModelInfo["tasks"] = [];
  /** Every answer of this page, for the downloads. */
  private readonly rows: Row[] = [];
  private paused = false;
  private asking: AbortController | null = null;
  private history: ChatMessage[] = [];
  /** Further recordings of the same person. */
  private additional: File[] = [];
  /** Rate at which sets and intervals contain the truth; from the server. */
  private coverage = NaN;
  /** The words of each task's labels; from the server. */
  private words: Record<string, Record<string, string>> = {};
  private readonly messages = byId("messages");
  private readonly field = byId<HTMLInputElement>("ask");
  private readonly suggestions = byId("suggestions");

  /** `onModel` is called with the model of each answer, `onWhy` with an explanation. */
  constructor(
    private readonly api: Api,
    private readonly person: () => Person,
    private readonly onModel: (model: ModelSummary) => void,
    private readonly onWhy: (explanation: Explanation) => void,
  ) {
    byId("ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const question = this.field.value.trim();
      if (!question || !this.ready()) return;
      this.field.value = "";
      void this.askOne(question);
    });
    byId("ask-all").addEventListener("click", () => {
      if (this.ready()) void this.askAll();
    });
    const field = byId<HTMLInputElement>("more");
    byId("ask-person").addEventListener("click", () => {
      if (this.ready()) field.click();
    });
    field.addEventListener("change", () => {
      const files = [...(field.files ?? [])];
      field.value = "";
      if (files.length > 0 && this.ready()) void this.askPerson(files);
    });
    byId("save-csv").addEventListener("click", () => save(nameOf(this.rows[0]?.recording ?? "", "csv"), csvOf(this.rows), "text/csv"));
    byId("save-fhir").addEventListener("click", () => void this.saveFhir());
    byId("save-pdf").addEventListener("click", () => window.print());
    this.enable();
  }

  /** Offers the tasks of the model, and takes its limits. */
  introduce({ tasks, notice, coverage, max_question_chars }: ModelInfo): void {
    this.coverage = coverage;
    this.words = Object.fromEntries(tasks.map((task) => [task.name, task.labels]));
    this.field.maxLength = max_question_chars;
    this.showIntro(notice);
    this.tasks = tasks;
    this.suggest();
    this.enable();
  }

  /** Buttons of the questions about the loaded recording, or about two. */
  private suggest(): void {
    const movements = this.second ? 2 : 1;
    this.suggestions.replaceChildren(
      ...this.tasks.filter((task) => task.movements === movements).map((task) => {
        const button = make("button", "chip", taskTitle(task.name));
        button.type = "button";
        button.title = task.question;
        button.setAttribute("aria-label", `${taskTitle(task.name)}: ${task.question}`);
        button.addEventListener("click", () => {
          if (this.ready()) void this.askOne(task.question);
        });
        return button;
      }),
    );
  }

  private showIntro(notice: string): void {
    this.messages.querySelector(".intro")?.remove();
    const intro = make("div", "intro");
    intro.append(
      make("p", "", "Choose a recording, then pick a question or write your own. Each answer comes from the movement alone."),
      make("p", "", "You can also ask “Is it a stroke?”, “And how fast?”, “Why?”, “Are you sure?” or “What can I ask?”, in several languages."),
    );
    if (notice) intro.append(make("p", "small", notice));
    this.messages.prepend(intro);
  }

  /** Another recording. Earlier messages stay on the page but are not part of the new conversation. */
  use(loaded: Loaded, second: Loaded | null = null): void {
    this.stop();
    this.loaded = loaded;
    this.second = second;
    this.suggest();
    this.history = [];
    this.additional = [];
    const last = this.messages.lastElementChild;
    if (last?.matches(".divider")) last.remove(); // nothing was asked about that one
    const about = second ? `A is ${loaded.motion.recording.name}, B is ${second.motion.recording.name}` : `About ${loaded.motion.recording.name}`;
    this.append(make("p", "divider", about));
    this.enable();
  }

  /** No questions while another recording is being read. */
  setPaused(paused: boolean): void {
    this.paused = paused;
    if (paused) this.stop();
    this.enable();
  }

  private ready(): boolean {
    return this.loaded !== null && !this.paused && this.asking === null;
  }

  private stop(): void {
    this.asking?.abort();
  }

  private async askOne(question: string): Promise<void> {
    const { motion } = this.loaded!;
    const turns: ChatMessage[] = [...this.history.slice(-MAX_HISTORY), { role: "user", content: question }];
    await this.ask(question, (patience) => this.api.chat(motion, this.second?.motion ?? null, turns, patience));
  }

  private async askAll(): Promise<void> {
    const { file } = this.loaded!;
    await this.ask("Ask everything", (patience) => this.api.allAnswers(file, this.person(), patience, this.second?.file));
  }

  /** Asks about the person, from all recordings. Files that cannot be read are not kept. */
  private async askPerson(files: File[]): Promise<void> {
    const { file } = this.loaded!;
    const additional = [...this.additional, ...files];
    const question = `About this person, from ${additional.length + 1} recordings: ${[file, ...additional].map(({ name }) => name).join(", ")}`;
    const send = async (patience: Patience) => {
      const answers = await this.api.personAnswers(file, additional, this.person(), patience);
      this.additional = additional;
      return answers;
    };
    await this.ask(question, send, true);
  }

  /** `aboutPerson`: the answers are not about the loaded recording, so they are no part of its conversation. */
  private async ask(question: string, send: (patience: Patience) => Promise<Answers>, aboutPerson = false): Promise<void> {
    const asking = (this.asking = new AbortController());
    const about = [this.loaded!, ...(this.second ? [this.second] : [])].map(({ motion }) => motion.recording.name).join(" and ");
    const comparing = this.second !== null;
    const asked = make("div", "message user", question);
    this.append(asked);
    const pending = new Pending();
    this.append(pending.node);
    this.enable();
    try {
      const { summary, answers, model, explanation } = await send({ signal: asking.signal, onBusy: (left) => pending.busy(left) });
      if (asking.signal.aborted) return;
      pending.remove();
      this.onModel(model);
      if (summary) this.append(make("div", "message answer summary", summary));
      for (const answer of answers) {
        this.rows.push({ recording: about, answer, data: model.data });
        // The summary says it for all of them.
        if (summary && answer.status === "unlike") continue;
        const node = bubble(answer, question, model.data, this.coverage, this.words[answer.task ?? ""] ?? {});
        if (!aboutPerson && !comparing && answer.task && !answer.refused && (answer.uncertain || answer.label !== null || answer.value !== null)) {
          node.append(this.whyButton(answer.task, answer.question));
        }
        this.append(node);
        if (!answer.text || aboutPerson) continue;
        // A question in the user's own words stays in these: "Are you sure?" is about what it asked.
        this.history.push({ role: "user", content: answer.intent ? question : answer.question || question });
        this.history.push({ role: "assistant", content: answer.text });
      }
      this.bringUp(asked);
      if (explanation) this.onWhy(explanation);
      if (answers.length === 0) this.fail({ text: "The server sent no answer.", detail: "" });
    } catch (reason) {
      if (!asking.signal.aborted) {
        pending.remove();
        this.fail(problemOf(reason));
      }
    } finally {
      if (asking.signal.aborted) pending.node.before(make("p", "small aside", "Stopped: another recording was chosen."));
      pending.remove();
      if (this.asking === asking) this.asking = null;
      this.enable();
    }
  }

  /** A button that asks for the explanation of an answer. It works while the same recording is open. */
  private whyButton(task: string, question: string): HTMLElement {
    const about = this.loaded!;
    const button = make("button", "chip why", "Why?");
    button.type = "button";
    button.title = "Show on the figure what this answer rests on";
    button.addEventListener("click", () => void this.why(button, about, task, question));
    return button;
  }

  private async why(button: HTMLButtonElement, about: Loaded, task: string, question: string): Promise<void> {
    if (this.loaded !== about) {
      this.fail({ text: `${about.motion.recording.name} is not open any more. Choose it again to see what the answer rests on.`, detail: "" });
      return;
    }
    button.disabled = true;
    announce("Looking for what the answer rests on");
    try {
      const explanation = await this.api.explanation(about.file, task, question);
      if (this.loaded === about) this.onWhy(explanation);
    } catch (reason) {
      this.fail(problemOf(reason));
    } finally {
      button.disabled = false;
    }
  }

  /** All answers about the loaded recording, as a FHIR Bundle. */
  private async saveFhir(): Promise<void> {
    if (!this.ready()) return;
    const { file, motion } = this.loaded!;
    const pending = new Pending("Preparing the FHIR file");
    this.append(pending.node);
    try {
      save(nameOf(motion.recording.name, "fhir.json"), await this.api.fhir(file, this.person()), "application/fhir+json");
      announce("The FHIR file is ready");
    } catch (reason) {
      this.fail(problemOf(reason));
    } finally {
      pending.remove();
    }
  }

  private fail(problem: Problem): void {
    const node = make("div", "message error");
    showProblem(node, problem);
    this.append(node);
  }

  private append(node: HTMLElement): void {
    this.messages.append(node);
    this.messages.scrollTop = this.messages.scrollHeight;
  }

  /** Scrolls to the end, but not past the question: many answers are read from the first one. */
  private bringUp(question: HTMLElement): void {
    const above = question.getBoundingClientRect().top - this.messages.getBoundingClientRect().top;
    this.messages.scrollTop = Math.min(this.messages.scrollHeight, this.messages.scrollTop + above - 6);
  }

  /** Without a recording, controls are off. While an answer is awaited, they keep the focus but do nothing. */
  private enable(): void {
    const off = this.loaded === null;
    const standBy = !off && !this.ready();
    const heads = ["send", "ask-all", "ask-person", "save-fhir"].map((id) => byId<HTMLButtonElement>(id));
    const buttons = [...heads, ...this.suggestions.querySelectorAll("button")];
    for (const button of buttons) {
      button.disabled = off;
      if (standBy) button.setAttribute("aria-disabled", "true");
      else button.removeAttribute("aria-disabled");
    }
    byId<HTMLButtonElement>("ask-person").disabled = off || this.second !== null;
    byId<HTMLButtonElement>("save-csv").disabled = this.rows.length === 0;
    this.field.disabled = off;
    this.field.placeholder = off ? "Choose a recording first" : this.second ? "Ask about A and B" : "Ask about this recording";
    this.messages.setAttribute("aria-busy", String(this.asking !== null));
  }
}

/** "Reading the movement", with the seconds after 5 s. */
class Pending {
  readonly node = make("div", "pending");
  private readonly text = make("span");
  private readonly started = Date.now();
  private readonly timer: ReturnType<typeof setInterval>;
  private waiting = false;

  constructor(private readonly words = "Reading the movement") {
    this.text.textContent = words;
    this.node.setAttribute("aria-live", "off");
    const dots = make("span", "dots");
    dots.setAttribute("aria-hidden", "true");
    dots.append(make("i"), make("i"), make("i"));
    this.node.append(dots, this.text);
    announce("Waiting for the answer");
    this.timer = setInterval(() => {
      const seconds = Math.round((Date.now() - this.started) / 1000);
      if (!this.waiting && seconds >= 5) this.text.textContent = `${this.words}, ${seconds} s`;
    }, 1000);
  }

  busy(secondsLeft: number): void {
    if (!this.waiting) announce(busyText(secondsLeft));
    this.waiting = secondsLeft > 0;
    this.text.textContent = busyText(secondsLeft);
  }

  remove(): void {
    clearInterval(this.timer);
    this.node.remove();
  }
}

function bubble(answer: Answer, asked: string, data: string, coverage: number, words: Record<string, string>): HTMLElement {
  const node = make("div", "message answer");
  if (answer.question && answer.question !== asked) node.append(make("p", "asked", answer.question));
  node.append(make("p", "answer-text", answer.text || "(no words)"));
  if (answer.advice) node.append(make("p", "", answer.advice));
  const drawing = certaintyDrawing(answer, words);
  if (drawing) node.append(drawing);
  const certainty = certaintyText(answer, coverage, words);
  if (certainty) node.append(make("p", "small", certainty));
  const condition = conditionText(answer);
  if (condition) node.append(make("p", "small", condition));
  if (answer.stated_parameters.length > 0) node.append(parameterTable(answer.stated_parameters));
  for (const line of measuredLines(answer)) node.append(make("p", "small", line));
  node.append(make("p", "small", `${answerTitle(answer)} · ${data} data`));
  return node;
}

/** What an answer is: its task, or what a question without a task got. */
export function answerTitle({ task, intent, generated }: Answer): string {
  if (generated) return "Written by the language model, not checked";
  if (task) return taskTitle(task);
  return intent === "list" ? "What can be asked" : "No answer";
}

/** What was measured of the same quantity, beside an answer of the model; a measured answer says it in its text. */
export function measuredLines({ answered_by, measured }: Pick<Answer, "answered_by" | "measured">): string[] {
  if (answered_by === "kinematics") return [];
  return measured.map(({ label, part, value, unit, steps, events, begin_s, end_s, norm, reason }) => {
    const name = part ? `${label}, ${part}` : label;
    if (value == null) return `Not measured (${name}): ${reason}`;
    const rests = steps == null ? "" : ` over ${steps} ${steps === 1 ? events.replace(/s$/, "") : events}`;
    const place = begin_s == null || end_s == null ? "" : ` (${begin_s.toFixed(1)} to ${end_s.toFixed(1)} s)`;
    const usual = norm ? `; ${norm.group}: ${norm.mean} (SD ${norm.sd})` : "";
    return `Measured from the joint angles: ${name} ${value} ${unit}`.trimEnd() + rests + place + usual;
  });
}

/** Stated parameters beside measured ones. A stated value that disagrees is marked. */
function parameterTable(parameters: StatedParameter[]): HTMLElement {
  const table = make("table", "stated");
  const head = table.createTHead().insertRow();
  for (const title of ["", "stated", "measured", "normal range"]) head.append(make("th", "", title));
  const body = table.createTBody();
  for (const { name, unit, stated, measured, agrees, normal_range, normal_range_source, normal_range_verified } of parameters) {
    const row = body.insertRow();
    if (!agrees) row.className = "off";
    const between = normal_range ? normal_range.map((edge) => Number(edge.toPrecision(3))).join("–") : "";
    for (const cell of [`${name}${unit ? `, ${unit}` : ""}`, stated, measured ?? "–"]) row.append(make("td", "", String(cell)));
    const unverified = normal_range !== null && normal_range_verified === false;
    const norm = make("td", "", unverified ? `${between}*` : between);
    norm.title = normal_range_source ?? "";
    row.append(norm);
  }
  if (parameters.some((parameter) => parameter.normal_range_verified === false)) {
    table.createCaption().textContent = "* unverified: quoted from memory of the printed table";
  }
  return table;
}

/** The certainty of an answer in words, beside its drawing: the interval, or the labels that are not ruled out. */
export function certaintyText(answer: Answer, coverage: number, words: Record<string, string> = {}): string {
  const { low, high, unit, prediction_set, coverage_guaranteed, probabilities } = answer;
  if (low !== null && high !== null) {
    const interval = `${low} to ${high} ${unit ?? ""}`.trim();
    return coverage_guaranteed ? `${coverageText(coverage)}: ${interval}` : `probably ${interval} (coverage not guaranteed)`;
  }
  if (!coverage_guaranteed || prediction_set.length < 2) return "";
  if (prediction_set.length === Object.keys(probabilities).length) return "Nothing is ruled out.";
  return `Not ruled out: ${prediction_set.map((label) => words[label] ?? label).join(", ")}`;
}

/** What a conditional answer supposes, with the probability that this holds and the answer is right. */
export function conditionText({ status, condition, applies, label, joint_probabilities }: Answer): string {
  if (status !== "answered" || !condition || applies === null) return "";
  const supposed = `Supposes ${condition} (${Math.round(100 * applies)} %)`;
  const joint = label === null ? undefined : joint_probabilities[label];
  return joint === undefined ? supposed : `${supposed} · both together ${Math.round(100 * joint)} %`;
}

/** 0.9 -> "90 % interval". */
export function coverageText(coverage: number): string {
  return Number.isFinite(coverage) ? `${Math.round(100 * coverage)} % interval` : "calibrated interval";
}
