/** The access key: from the address bar's fragment, this tab's storage, or a small dialog. */

import { byId, showText } from "./dom";

const STORED_AS = "biomechgpt-key";

export class Keys {
  private key: string | null;
  private waiting: Promise<string> | null = null;
  private readonly dialog = byId<HTMLDialogElement>("key-dialog");
  private readonly field = byId<HTMLInputElement>("key");

  constructor() {
    this.key = this.fromFragment() ?? stored();
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.entered(this.field.value.trim());
    });
    // Without a key nothing works, so the dialog cannot be dismissed then.
    this.dialog.addEventListener("cancel", (event) => {
      if (this.waiting) event.preventDefault();
    });
    this.dialog.addEventListener("close", () => {
      if (this.waiting && !this.key) this.dialog.showModal();
    });
    byId("key-cancel").addEventListener("click", () => this.dialog.close());
  }

  /** The key, asked for when there is none. Callers that come meanwhile wait for the same answer. */
  get(): Promise<string> {
    if (this.key) return Promise.resolve(this.key);
    this.waiting ??= new Promise((resolve) => {
      this.accepted = resolve;
      this.open();
    });
    return this.waiting;
  }

  /** The server refused this key: forget it, so that the next get() asks. */
  refuse(key: string): void {
    if (this.key !== key) return;
    this.keep(null);
    showText(byId("key-error"), "The server did not accept this key.");
  }

  /** Called with every key that replaces another one at the user's wish. */
  onChange(use: () => void): void {
    this.changed = use;
    byId("change-key").addEventListener("click", () => this.open());
    window.addEventListener("hashchange", () => {
      const key = this.fromFragment();
      if (key) this.entered(key);
    });
  }

  private accepted: (key: string) => void = () => {};
  private changed: () => void = () => {};

  private open(): void {
    this.field.value = "";
    byId("key-cancel").hidden = this.waiting !== null || this.key === null;
    if (!this.dialog.open) this.dialog.showModal();
    this.field.focus();
  }

  private entered(key: string): void {
    if (!/^[\x21-\x7e]+$/.test(key)) {
      showText(byId("key-error"), "A key has letters, digits and signs, without spaces.");
      return;
    }
    showText(byId("key-error"), "");
    this.keep(key);
    const wasWaiting = this.waiting !== null;
    this.waiting = null;
    if (this.dialog.open) this.dialog.close();
    if (wasWaiting) this.accepted(key);
    else this.changed();
  }

  private keep(key: string | null): void {
    this.key = key;
    try {
      if (key) sessionStorage.setItem(STORED_AS, key);
      else sessionStorage.removeItem(STORED_AS);
    } catch {
      // Storage is switched off: the key lasts until the page is left.
    }
  }

  private fromFragment(): string | null {
    const found = /(?:^#|&)key=([^&]*)/.exec(location.hash);
    if (!found) return null;
    history.replaceState(null, "", location.pathname + location.search);
    const key = decoded(found[1]!);
    if (!/^[\x21-\x7e]+$/.test(key)) return null;
    this.keep(key);
    return key;
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function stored(): string | null {
  try {
    return sessionStorage.getItem(STORED_AS);
  } catch {
    return null;
  }
}
