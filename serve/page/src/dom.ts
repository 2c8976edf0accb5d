/** Small helpers around the document. Text only ever enters the page as text, never as markup. */

export function byId<T extends HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found as T;
}

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  text = "",
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** Tell screen readers something that sighted users see elsewhere. */
export function announce(text: string): void {
  byId("announcer").textContent = text;
}

/** Show `text` in an element that is hidden while it has none. */
export function showText(node: HTMLElement, text: string): void {
  node.textContent = text;
  node.hidden = text === "";
}

/** The radio inputs of a fieldset, as one value. */
export function onChoice(fieldset: HTMLElement, use: (value: string) => void): void {
  fieldset.addEventListener("change", (event) => use((event.target as HTMLInputElement).value));
}

/** Show an error in words, with what exactly was wrong folded below. An empty text hides it. */
export function showProblem(node: HTMLElement, { text, detail }: { text: string; detail: string }): void {
  node.replaceChildren(...(text ? [make("p", "", text)] : []));
  if (detail) {
    const details = make("details");
    details.append(make("summary", "", "What exactly was wrong"), make("p", "small", detail));
    node.append(details);
  }
  node.hidden = text === "";
}
