/** The conversation about the loaded recording. */

import { type Answer, type Answers, type Api, busyText, type Explanation, type Fact, type ModelSummary, type Patience, type Task, type Turn, wordsOf } from "./api";
import { announce, byId, make } from "./dom";
import type { Loaded } from "./picker";

const LONGEST_HISTORY = 20;
const ACRONYMS = /\b(tug|fsst)\b/g;

/** "fsst_time" -> "FSST time". */
export function taskTitle(name: string): string {
  const words = name.replaceAll("_", " ").replace(ACRONYMS, (word) => word.toUpperCase());
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export class Chat {
  private loaded: Loaded | null = null;
  private paused = false;
  private asking: AbortController | null = null;
  private history: Turn[] = [];
  /** Further recordings of the person in the loaded one. */
  private more: File[] = [];
  private readonly messages = byId("messages");
  private readonly field = byId<HTMLInputElement>("ask");
  private readonly suggestions = byId("suggestions");

  /** `onModel` hears which model gave each answer, `onWhy` what one rests on. */
  constructor(
    private readonly api: Api,
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
    // Phones do not know these file types and would grey all files out.
    if (matchMedia("(pointer: coarse)").matches) field.removeAttribute("accept");
    this.enable();
  }

  showTasks(tasks: Task[]): void {
    this.suggestions.replaceChildren(
      ...tasks.filter((task) => (task.movements ?? 1) === 1).map((task) => {
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
    this.enable();
  }

  showIntro(notice: string): void {
    this.messages.querySelector(".intro")?.remove();
    const intro = make("div", "intro");
    intro.append(
      make("p", "", "Choose a recording, then pick a question or write your own. Each answer comes from the movement alone."),
    );
    if (notice) intro.append(make("p", "small", notice));
    this.messages.prepend(intro);
  }

  /** Another recording: earlier turns stay on the page but are not part of the new conversation. */
  use(loaded: Loaded): void {
    this.stop();
    this.loaded = loaded;
    this.history = [];
    this.more = [];
    const last = this.messages.lastElementChild;
    if (last?.matches(".divider")) last.remove(); // nothing was asked about that one
    this.append(make("p", "divider", `About ${loaded.motion.recording.name}`));
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
    const turns: Turn[] = [...this.history.slice(-LONGEST_HISTORY), { role: "user", content: question }];
    await this.ask(question, (patience) => this.api.chat(motion, turns, patience));
  }

  private async askAll(): Promise<void> {
    const { file } = this.loaded!;
    await this.ask("Ask everything", (patience) => this.api.allAnswers(file, patience));
  }

  /** What is the same in all recordings of a person; files that cannot be read are not kept. */
  private async askPerson(files: File[]): Promise<void> {
    const { file } = this.loaded!;
    const more = [...this.more, ...files];
    const question = `About this person, from ${more.length + 1} recordings: ${[file, ...more].map((one) => one.name).join(", ")}`;
    const send = async (patience: Patience) => {
      const answers = await this.api.personAnswers(file, more, patience);
      this.more = more;
      return answers;
    };
    await this.ask(question, send, true);
  }

  /** `ofPerson`: the answers are not about the loaded recording, so they are no part of its conversation. */
  private async ask(question: string, send: (patience: Patience) => Promise<Answers>, ofPerson = false): Promise<void> {
    const asking = (this.asking = new AbortController());
    const asked = make("div", "message user", question);
    this.append(asked);
    const pending = new Pending();
    this.append(pending.node);
    this.enable();
    try {
      const { answers, model } = await send({ signal: asking.signal, onBusy: (left) => pending.busy(left) });
      if (asking.signal.aborted) return;
      pending.remove();
      this.onModel(model);
      for (const answer of answers) {
        const node = bubble(answer, question, model.data);
        if (!ofPerson && answer.task && !answer.refused && (answer.uncertain || answer.label !== null || answer.value !== null)) {
          node.append(this.whyButton(answer.task, answer.question));
        }
        this.append(node);
        if (!answer.text || ofPerson) continue;
        this.history.push({ role: "user", content: answer.question || question });
        this.history.push({ role: "assistant", content: answer.text });
      }
      this.bringUp(asked);
      if (answers.length === 0) this.fail("The server sent no answer.");
    } catch (reason) {
      if (!asking.signal.aborted) {
        pending.remove();
        this.fail(wordsOf(reason));
      }
    } finally {
      if (asking.signal.aborted) pending.node.before(make("p", "small aside", "Stopped: another recording was chosen."));
      pending.remove();
      if (this.asking === asking) this.asking = null;
      this.enable();
    }
  }

  /** Asks what an answer about the recording of now rests on; about an earlier one it is not asked any more. */
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
      this.fail(`${about.motion.recording.name} is not open any more. Choose it again to see what the answer rests on.`);
      return;
    }
    button.disabled = true;
    announce("Looking for what the answer rests on");
    try {
      const told = await this.api.explanation(about.file, task, question);
      if (this.loaded === about) this.onWhy(told);
    } catch (reason) {
      this.fail(wordsOf(reason));
    } finally {
      button.disabled = false;
    }
  }

  private fail(text: string): void {
    this.append(make("div", "message error", text));
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

  /** Before there is a recording, controls are off; while an answer is awaited they only stand by and keep focus. */
  private enable(): void {
    const off = this.loaded === null;
    const standBy = !off && !this.ready();
    const heads = ["send", "ask-all", "ask-person"].map((id) => byId<HTMLButtonElement>(id));
    const buttons = [...heads, ...this.suggestions.querySelectorAll("button")];
    for (const button of buttons) {
      button.disabled = off;
      if (standBy) button.setAttribute("aria-disabled", "true");
      else button.removeAttribute("aria-disabled");
    }
    this.field.disabled = off;
    this.field.placeholder = off ? "Choose a recording first" : "Ask about this recording";
    this.messages.setAttribute("aria-busy", String(this.asking !== null));
  }
}

/** "Thinking", with the seconds once it takes long. */
class Pending {
  readonly node = make("div", "pending");
  private readonly text = make("span", "", "Reading the movement");
  private readonly started = Date.now();
  private readonly timer: ReturnType<typeof setInterval>;
  private waiting = false;

  constructor() {
    this.node.setAttribute("aria-live", "off");
    const dots = make("span", "dots");
    dots.setAttribute("aria-hidden", "true");
    dots.append(make("i"), make("i"), make("i"));
    this.node.append(dots, this.text);
    announce("Waiting for the answer");
    this.timer = setInterval(() => {
      const seconds = Math.round((Date.now() - this.started) / 1000);
      if (!this.waiting && seconds >= 5) this.text.textContent = `Reading the movement, ${seconds} s`;
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

function bubble(answer: Answer, asked: string, data: string): HTMLElement {
  const node = make("div", "message answer");
  if (answer.question && answer.question !== asked) node.append(make("p", "asked", answer.question));
  node.append(make("p", "answer-text", answer.text || "(no words)"));
  if (answer.advice) node.append(make("p", "", answer.advice));
  const sure = certainty(answer);
  if (sure) node.append(make("p", "small", sure));
  if (answer.facts?.length) node.append(factTable(answer.facts));
  const task = answer.task ? taskTitle(answer.task) : "Free question";
  node.append(make("p", "small", `${task} · ${data} data`));
  return node;
}

/** What a description states beside what was measured; a fact that is off is marked. */
function factTable(facts: Fact[]): HTMLElement {
  const table = make("table", "stated");
  const head = table.createTHead().insertRow();
  for (const title of ["", "stated", "measured", "usual walk"]) head.append(make("th", "", title));
  const body = table.createTBody();
  for (const { name, unit, stated, measured, agrees, usual, normal_range_source, normal_range_verified } of facts) {
    const row = body.insertRow();
    if (!agrees) row.className = "off";
    const between = usual ? usual.map((edge) => Number(edge.toPrecision(3))).join("–") : "";
    for (const cell of [`${name}${unit ? `, ${unit}` : ""}`, stated, measured ?? "–"]) row.append(make("td", "", String(cell)));
    const unverified = usual !== null && normal_range_verified === false;
    const norm = make("td", "", unverified ? `${between}*` : between);
    norm.title = normal_range_source ?? "";
    row.append(norm);
  }
  if (facts.some((fact) => fact.normal_range_verified === false)) {
    table.createCaption().textContent = "* unverified: quoted from memory of the printed table";
  }
  return table;
}

/** How sure it is, in words: the three likeliest labels and those that cannot be ruled out, or a number's interval. */
function certainty(answer: Answer): string {
  if (answer.low !== null && answer.high !== null) {
    return `${answer.promised ? "9 in 10 lie" : "probably"} between ${answer.low} and ${answer.high} ${answer.unit ?? ""}`.trim();
  }
  const likely = Object.entries(answer.probabilities)
    .slice(0, 3)
    .map(([label, share]) => `${label} ${Math.round(100 * share)} %`)
    .join(" · ");
  const possible = answer.possible ?? [];
  return answer.promised && possible.length > 1 ? `${likely} — not ruled out: ${possible.join(", ")}` : likely;
}
