/** Calls of the server's API, its errors, and the wait that a busy server asks for. */

import type { Answers, ChatMessage, Example, Examples, Explanation, ModelInfo, Motion } from "./api.types";
import type { Keys } from "./key";

export type {
  Answer,
  Answers,
  ChatMessage,
  Example,
  Explanation,
  Figure,
  JointCurve,
  ModelInfo,
  ModelSummary,
  Motion,
  RecordingInfo,
  StatedParameter,
  Strides,
  TaskInfo,
} from "./api.types";

/** What is known about the person, which chooses the norms of measured values. Empty text: not known. */
export interface Person {
  age: string;
  sex: string;
}

/** signal stops a call. onBusy is called each second while the server is busy; 0: the call is sent again now. */
export interface Patience {
  signal?: AbortSignal;
  onBusy?: (secondsLeft: number) => void;
}

/** An error whose message can be shown to the user. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

const UNREACHABLE = "The server could not be reached. Check the connection and try again.";
const DEFAULT_WAIT_S = 5;
const LONGEST_WAIT_S = 120;

export class Api {
  constructor(private readonly keys: Keys) {}

  model(patience: Patience = {}): Promise<ModelInfo> {
    return this.json("v1/model", {}, patience);
  }

  async examples(patience: Patience = {}): Promise<Example[]> {
    return (await this.json<Examples>("v1/examples", {}, patience)).examples;
  }

  async exampleFile(name: string, patience: Patience = {}): Promise<File> {
    const response = await this.send(`v1/examples/${encodeURIComponent(name)}`, {}, patience);
    try {
      return new File([await response.blob()], name);
    } catch (reason) {
      throw patience.signal?.aborted ? reason : new ApiError("unreachable", UNREACHABLE);
    }
  }

  motion(file: File, person: Person, patience: Patience = {}): Promise<Motion> {
    return this.json("v1/motions", post(form(file, person)), patience);
  }

  /** Sends the tokenizer's fingerprint with the tokens. A server whose model has changed refuses them.
   *
   * second: the recording that the first is compared with.
   */
  chat(motion: Motion, second: Motion | null, messages: ChatMessage[], patience: Patience = {}): Promise<Answers> {
    const { tokens, views, tokenizer, analysis } = motion;
    const about = second
      ? {
          tokens: [tokens, second.tokens],
          views: [views, second.views],
          tokenizer,
          analysis: analysis && second.analysis ? [analysis, second.analysis] : null,
        }
      : { tokens, views, tokenizer, analysis };
    const request = post(JSON.stringify({ ...about, messages }), { "Content-Type": "application/json" });
    return this.json("v1/chat", request, patience);
  }

  allAnswers(file: File, person: Person, patience: Patience = {}, second: File | null = null): Promise<Answers> {
    const body = form(file, person);
    if (second) body.append("compare_with", second, second.name);
    body.append("tasks", "all");
    return this.json("v1/answers", post(body), patience);
  }

  /** Answers about the person, from all recordings together. */
  personAnswers(file: File, additional: File[], person: Person, patience: Patience = {}): Promise<Answers> {
    const body = form(file, person);
    for (const recording of additional) body.append("additional_recordings", recording, recording.name);
    body.append("tasks", "all");
    return this.json("v1/answers", post(body), patience);
  }

  /** All answers about a recording as a FHIR Bundle, in text. */
  async fhir(file: File, person: Person, patience: Patience = {}): Promise<string> {
    const body = form(file, person);
    body.append("tasks", "all");
    const headers = { Accept: "application/fhir+json" };
    return (await this.send("fhir/$answer-motion", post(body, headers), patience)).text();
  }

  explanation(file: File, task: string, question: string, patience: Patience = {}): Promise<Explanation> {
    const body = form(file);
    body.append("task", task);
    body.append("question", question);
    return this.json("v1/explanations", post(body), patience);
  }

  private async json<T>(path: string, request: RequestInit, patience: Patience): Promise<T> {
    const response = await this.send(path, request, patience);
    try {
      return (await response.json()) as T;
    } catch (reason) {
      if (patience.signal?.aborted) throw reason;
      throw new ApiError("bad_answer", "The server’s answer could not be read. Try again.");
    }
  }

  /** Sends a request with the key. Asks for the key again after 401; waits and sends once more after 429 or 503. */
  private async send(path: string, request: RequestInit, patience: Patience): Promise<Response> {
    let waited = false;
    for (;;) {
      const key = await this.keys.get();
      const response = await fetchOnce(path, request, key, patience.signal);
      if (response.status === 401) {
        this.keys.refuse(key);
      } else if (isBusy(response) && !waited) {
        waited = true;
        await countdown(retryAfter(response.headers.get("Retry-After")), patience);
      } else if (!response.ok) {
        throw await problem(response);
      } else {
        return response;
      }
    }
  }
}

function form(file: File, person: Person = { age: "", sex: "" }): FormData {
  const body = new FormData();
  body.append("recording", file, file.name);
  if (person.age) body.append("age", person.age);
  if (person.sex) body.append("sex", person.sex);
  return body;
}

function post(body: BodyInit, headers: Record<string, string> = {}): RequestInit {
  return { method: "POST", body, headers };
}

async function fetchOnce(path: string, request: RequestInit, key: string, signal?: AbortSignal): Promise<Response> {
  const headers = { ...(request.headers as Record<string, string>), Authorization: `Bearer ${key}` };
  try {
    return await fetch(path, { ...request, headers, signal: signal ?? null, cache: "no-store" });
  } catch (reason) {
    throw signal?.aborted ? reason : new ApiError("unreachable", UNREACHABLE);
  }
}

/** Whether the server, or this key, is asked too much at the moment. */
function isBusy(response: Response): boolean {
  return response.status === 503 || response.status === 429;
}

async function problem(response: Response): Promise<ApiError> {
  try {
    const { code, message } = (await response.json()).error;
    if (typeof message === "string" && message) return new ApiError(String(code), message);
  } catch {
    // Not an error of the API; perhaps the page of a proxy.
  }
  if (isBusy(response)) return new ApiError("busy", "The server is busy. Try again in a while.");
  return new ApiError("unexpected", `The server answered with an error (HTTP ${response.status}). Try again.`);
}

/** Seconds to wait, from the header Retry-After: a number of seconds, or a date. */
export function retryAfter(header: string | null): number {
  if (!header) return DEFAULT_WAIT_S;
  const seconds = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(Math.ceil(seconds), 0), LONGEST_WAIT_S) : DEFAULT_WAIT_S;
}

async function countdown(seconds: number, { signal, onBusy }: Patience): Promise<void> {
  for (let left = seconds; left > 0; left--) {
    onBusy?.(left);
    await sleep(1000, signal);
  }
  onBusy?.(0);
}

function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Text to show while the server is busy. */
export function busyText(secondsLeft: number): string {
  if (secondsLeft === 0) return "Trying again…";
  return `The server is busy. Trying again in ${secondsLeft} s.`;
}

/** An error for people: what happened and what to do, and what exactly the server said. */
export interface Problem {
  text: string;
  detail: string;
}

const PROBLEMS: Record<string, string> = {
  bad_recording: "This file cannot be used. It is damaged, or it has no joint angles in a form that the program knows.",
  bad_request: "The program could not use this question or file.",
  too_large: "This file is too large for the server. Try a shorter recording.",
  forbidden: "Your key does not allow this. Ask the person who runs the server.",
  not_found: "The server does not have this any more. Reload the page.",
  too_many: "You have asked a lot in a short time. Wait a minute and try again.",
  busy: "The server is busy. Try again in a minute.",
  timeout: "The server took too long. Try again, or try a shorter recording.",
  internal: "The server made an error, which is not your fault. Try again; if it happens again, tell the person who runs the server.",
};

export function problemOf(reason: unknown): Problem {
  if (reason instanceof ApiError) {
    const text = PROBLEMS[reason.code];
    return text ? { text, detail: reason.message } : { text: reason.message, detail: "" };
  }
  console.error(reason);
  return { text: "Something went wrong in this page. Reload it and try again.", detail: "" };
}

/** Text to show for an error where there is no room for details. */
export function wordsOf(reason: unknown): string {
  const { text, detail } = problemOf(reason);
  return detail ? `${text} (${detail})` : text;
}
