/** The choice of a recording: an example of the server, a file field, or a file that is dropped on the page. */

import { type Api, busyText, type Example, type Motion, type Person, type Problem, problemOf } from "./api";
import { announce, byId, make, showProblem, showText } from "./dom";

export interface Loaded {
  file: File;
  motion: Motion;
}

/** Value of `accept` for a file field; empty: every file. */
export function acceptOf(suffixes: string[], isPhone: boolean): string {
  return isPhone ? "" : suffixes.join(",");
}

/** Help text under the file field. */
export function suffixesText(suffixes: string[]): string {
  if (suffixes.length === 0) return "";
  return `Usually ${suffixes.join(", ")}; the content decides, not the name`;
}

const NO_PROBLEM: Problem = { text: "", detail: "" };

export class Picker {
  private readonly list = byId("examples");
  private readonly status = byId("load-status");
  private readonly error = byId("load-error");
  private readonly toggle = byId("picker-toggle");
  private loading: AbortController | null = null;

  private readonly beside = byId<HTMLInputElement>("beside");

  /** `onLoading(true)` is called when a recording is chosen, `onLoaded` when it was read, `onMany` with several files. */
  constructor(
    private readonly api: Api,
    private readonly onLoading: (loading: boolean) => void,
    private readonly onLoaded: (loaded: Loaded, beside: boolean) => void,
    private readonly onMany: (files: File[]) => void,
  ) {
    const field = byId<HTMLInputElement>("file");
    field.addEventListener("change", () => {
      const files = [...(field.files ?? [])];
      field.value = ""; // so that the same file can be chosen again after it was corrected
      this.take(files);
    });
    this.toggle.addEventListener("click", () => this.setOpen(this.toggle.getAttribute("aria-expanded") !== "true"));
    this.acceptDrops();
  }

  /** File names that the file dialogs offer first. The server decides by content, so no file is refused here. */
  setSuffixes(suffixes: string[]): void {
    // Phones do not know these suffixes and would disable every file.
    const accept = acceptOf(suffixes, matchMedia("(pointer: coarse)").matches);
    for (const id of ["file", "more"]) byId<HTMLInputElement>(id).accept = accept;
    showText(byId("file-help"), suffixesText(suffixes));
  }

  /** What is known about the person. An age that is no number is left out. */
  get person(): Person {
    const age = byId<HTMLInputElement>("age");
    return { age: age.validity.valid ? age.value : "", sex: byId<HTMLSelectElement>("sex").value };
  }

  /** Opens a file; several files become a table. */
  take(files: File[]): void {
    const [file] = files;
    if (files.length > 1) this.onMany(files);
    else if (file) void this.load(file.name, async () => file);
  }

  showExamples(examples: Example[]): void {
    this.list.replaceChildren(
      ...examples.map((example) => {
        const button = make("button", "example");
        button.type = "button";
        button.dataset.name = example.name;
        const about = make("span", "small", `${example.description} `);
        about.append(make("span", "tag", example.data));
        button.append(make("span", "example-name", example.name), about);
        button.addEventListener("click", () => void this.load(example.name, (patience) => this.api.exampleFile(example.name, patience)));
        const item = make("li");
        item.append(button);
        return item;
      }),
    );
    if (examples.length === 0) this.showExamplesNote("This server has no examples.");
  }

  showExamplesNote(text: string): void {
    this.list.replaceChildren(make("li", "small", text));
  }

  private async load(name: string, open: (patience: { signal: AbortSignal }) => Promise<File>): Promise<void> {
    this.loading?.abort();
    showProblem(this.error, NO_PROBLEM);
    const beside = this.beside.checked && !this.beside.disabled;
    const loading = (this.loading = new AbortController());
    const patience = {
      signal: loading.signal,
      onBusy: (left: number) => showText(this.status, busyText(left)),
    };
    showText(this.status, `Reading ${name}…`);
    announce(`Reading ${name}`);
    this.onLoading(true);
    try {
      const file = await open(patience);
      const motion = await this.api.motion(file, this.person, patience);
      if (loading.signal.aborted) return;
      this.finish(NO_PROBLEM);
      if (!beside) this.mark(name);
      this.toggle.hidden = false;
      this.setOpen(false);
      this.beside.checked = false;
      this.beside.disabled = false;
      this.onLoaded({ file, motion }, beside);
      announce(`${motion.recording.name} is loaded. You can ask about it now.`);
    } catch (reason) {
      if (!loading.signal.aborted) this.finish(problemOf(reason));
    }
  }

  private finish(problem: Problem): void {
    showText(this.status, "");
    showProblem(this.error, problem);
    if (problem.text) this.error.scrollIntoView({ block: "nearest" });
    this.onLoading(false);
  }

  private mark(name: string): void {
    for (const button of this.list.querySelectorAll<HTMLElement>(".example")) {
      if (button.dataset.name === name) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  /** On narrow screens the list folds away once a recording is loaded; wide ones always show it. */
  private setOpen(open: boolean): void {
    byId("picker-body").classList.toggle("folded", !open);
    this.toggle.setAttribute("aria-expanded", String(open));
    this.toggle.textContent = open ? "Hide" : "Change recording";
    const focused = document.activeElement as HTMLElement | null;
    if (focused?.closest("#picker-body") && focused.offsetParent === null) this.toggle.focus({ preventScroll: true });
  }

  private acceptDrops(): void {
    const carriesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const highlight = (on: boolean) => document.body.classList.toggle("dragging", on);
    document.addEventListener("dragover", (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      highlight(true);
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) highlight(false);
    });
    document.addEventListener("drop", (event) => {
      highlight(false);
      if (!carriesFiles(event)) return;
      event.preventDefault();
      this.take([...(event.dataTransfer?.files ?? [])]);
    });
  }
}
