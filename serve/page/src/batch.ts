/** Several files at once: a table with a row for each recording and a column for each task. */

import { type Answer, type Answers, type Api, type ModelInfo, type Person, problemOf } from "./api";
import { announce, byId, make, showText } from "./dom";
import { csvOf, type Row, save } from "./download";
import { taskTitle } from "./titles";

export class Batch {
  private readonly dialog = byId<HTMLDialogElement>("table-dialog");
  private readonly progress = byId<HTMLProgressElement>("table-progress");
  private readonly status = byId("table-status");
  private readonly table = byId<HTMLTableElement>("table");
  private tasks: string[] = [];
  private rows: Row[] = [];
  private running: AbortController | null = null;

  /** `open` shows one of the recordings on the page. */
  constructor(
    private readonly api: Api,
    private readonly open: (file: File) => void,
  ) {
    byId("table-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("close", () => this.running?.abort());
    byId("table-csv").addEventListener("click", () => save("answers.csv", csvOf(this.rows), "text/csv"));
  }

  introduce({ tasks }: ModelInfo): void {
    this.tasks = tasks.filter(({ movements, kind }) => movements === 1 && kind !== "description" && kind !== "measured").map(({ name }) => name);
  }

  /** Asks about each file in turn. A file that cannot be used becomes a row with the reason. */
  async show(files: File[], person: Person): Promise<void> {
    this.running?.abort();
    const running = (this.running = new AbortController());
    this.rows = [];
    byId<HTMLButtonElement>("table-csv").disabled = true;
    const head = this.table.createTHead();
    head.replaceChildren();
    const headings = head.insertRow();
    for (const title of ["Recording", ...this.tasks.map(taskTitle)]) {
      const cell = make("th", "", title);
      cell.scope = "col";
      headings.append(cell);
    }
    this.table.tBodies[0]?.remove();
    const body = this.table.createTBody();
    this.progress.max = files.length;
    if (!this.dialog.open) this.dialog.showModal();
    for (const [done, file] of files.entries()) {
      this.progress.value = done;
      showText(this.status, `Reading ${file.name}, ${done + 1} of ${files.length}`);
      const row = body.insertRow();
      row.append(this.rowHead(file));
      try {
        const answers = await this.api.allAnswers(file, person, { signal: running.signal });
        if (running.signal.aborted) return;
        this.fill(row, file, answers);
      } catch (reason) {
        if (running.signal.aborted) return;
        const { text, detail } = problemOf(reason);
        const cell = make("td", "problem", text);
        if (detail) cell.append(make("span", "small", ` ${detail}`));
        cell.colSpan = this.tasks.length;
        row.append(cell);
      }
    }
    this.progress.value = files.length;
    const read = new Set(this.rows.map(({ recording }) => recording)).size;
    const text = `${read} of ${files.length} recordings answered`;
    showText(this.status, text);
    announce(text);
    byId<HTMLButtonElement>("table-csv").disabled = this.rows.length === 0;
  }

  private rowHead(file: File): HTMLElement {
    const head = make("th");
    head.scope = "row";
    const button = make("button", "quiet", file.name);
    button.type = "button";
    button.title = "Open this recording";
    button.addEventListener("click", () => {
      this.dialog.close();
      this.open(file);
    });
    head.append(button);
    return head;
  }

  private fill(row: HTMLTableRowElement, file: File, { answers, model }: Answers): void {
    for (const answer of answers) this.rows.push({ recording: file.name, answer, data: model.data });
    for (const task of this.tasks) row.append(make("td", "", cellText(answers.find((answer) => answer.task === task))));
  }
}

/** An answer in a cell: the label with its probability, or the number with its interval. */
export function cellText(answer: Answer | undefined): string {
  if (!answer) return "–";
  if (answer.status === "unlike") return "unlike the training data";
  if (answer.refused) return "does not apply";
  if (answer.value !== null) {
    const interval = answer.low === null || answer.high === null ? "" : ` (${answer.low} to ${answer.high})`;
    return `${answer.value} ${answer.unit ?? ""}`.trim() + interval;
  }
  const best = Object.entries(answer.probabilities)[0];
  if (answer.uncertain) return "uncertain";
  return best ? `${answer.label ?? best[0]} ${Math.round(100 * best[1])} %` : answer.text;
}
