/** The choice of a recording: an example of the server, a file field, or a file that is dropped on the page. */

import { type Api, busyText, type Example, type Motion, wordsOf } from "./api";
import { announce, byId, make, showText } from "./dom";

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

export class Picker {
  private readonly list = byId("examples");
  private readonly status = byId("load-status");
  private readonly error = byId("load-error");
  private readonly toggle = byId("picker-toggle");
  private loading: AbortController | null = null;

  /** `onLoading(true)` is called when a recording is chosen, `onLoaded` when it was read. */
  constructor(
    private readonly api: Api,
    private readonly onLoading: (loading: boolean) => void,
    private readonly onLoaded: (loaded: Loaded) => void,
  ) {
    const field = byId<HTMLInputElement>("file");
    field.addEventListener("change", () => {
      const file = field.files?.[0];
      field.value = ""; // so that the same file can be chosen again after it was corrected
      if (file) void this.load(file.name, async () => file);
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
    showText(this.error, "");
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
      const motion = await this.api.motion(file, patience);
      if (loading.signal.aborted) return;
      this.finish("");
      this.mark(name);
      this.toggle.hidden = false;
      this.setOpen(false);
      this.onLoaded({ file, motion });
      announce(`${motion.recording.name} is loaded. You can ask about it now.`);
    } catch (reason) {
      if (!loading.signal.aborted) this.finish(wordsOf(reason));
    }
  }

  private finish(error: string): void {
    showText(this.status, "");
    showText(this.error, error);
    if (error) this.error.scrollIntoView({ block: "nearest" });
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
      const file = event.dataTransfer?.files[0];
      if (file) void this.load(file.name, async () => file);
    });
  }
}
