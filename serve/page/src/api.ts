/** The server's API: its shapes, its errors, and the waiting that a busy server asks for. */

import type { Keys } from "./key";

export interface Task {
  name: string;
  kind: string;
  question: string;
  unit: string | null;
  /** How many recordings it is asked about; this page shows one. */
  movements?: number;
}

export interface ModelSummary {
  fingerprint: string;
  base: string;
  data: string;
}

export interface Model extends ModelSummary {
  notice: string;
  tasks: Task[];
}

export interface Example {
  name: string;
  description: string;
  data: string;
}

export interface Recording {
  name: string;
  frames: number;
  duration_s: number;
  /** How much of it the model can read, from the start. */
  used_s?: number;
  frame_rate_hz: number;
  knee_flexion: string;
  missing_joints: string[];
}

export interface Figure {
  frame_rate_hz: number;
  points: string[];
  bones: [number, number][];
  positions_m: (number | null)[][][];
}

export interface Motion {
  recording: Recording;
  tokens: number[];
  /** Those of the mirror image, where the model reads it too. */
  mirrored: number[] | null;
  tokenizer: string;
  figure: Figure;
}

export interface Answer {
  task: string | null;
  question: string;
  text: string;
  label: string | null;
  value: number | null;
  unit: string | null;
  /** Of each label, likeliest first; empty for a number or a question of one's own. */
  probabilities: Record<string, number>;
  /** Labels that cannot be ruled out. */
  possible?: string[];
  /** Whether set and interval hold the truth nine times in ten. */
  promised?: boolean;
  low: number | null;
  high: number | null;
  /** Too unsure for the risk that is wanted; advice says what would help. */
  uncertain?: boolean;
  advice?: string | null;
  refused?: boolean;
  /** What a description states, and what the recording's own angles say. */
  facts?: Fact[];
}

/** What an answer rests on: parts of the recording (begin, end, weight), joints, and the figure's points. */
export interface Explanation {
  answer: Answer;
  of: number;
  seconds: [number, number, number][];
  joints: Record<string, number>;
  points: Record<string, number>;
}

export interface Fact {
  name: string;
  unit: string;
  stated: number;
  measured: number | null;
  agrees: boolean;
  usual: [number, number] | null;
  normal_range_source: string | null;
  normal_range_verified: boolean | null;
}

export interface Answers {
  answers: Answer[];
  model: ModelSummary;
  notice: string;
}

export interface Turn {
  role: "user" | "assistant";
  content: string;
}

/** How a call can be stopped, and who is told that the server is busy (0 seconds left: trying again now). */
export interface Patience {
  signal?: AbortSignal;
  onBusy?: (secondsLeft: number) => void;
}

/** A failure in words that can be shown to the user. */
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

  model(patience: Patience = {}): Promise<Model> {
    return this.json("v1/model", {}, patience);
  }

  async examples(patience: Patience = {}): Promise<Example[]> {
    return (await this.json<{ examples: Example[] }>("v1/examples", {}, patience)).examples;
  }

  async exampleFile(name: string, patience: Patience = {}): Promise<File> {
    const response = await this.send(`v1/examples/${encodeURIComponent(name)}`, {}, patience);
    try {
      return new File([await response.blob()], name);
    } catch (reason) {
      throw patience.signal?.aborted ? reason : new ApiError("unreachable", UNREACHABLE);
    }
  }

  motion(file: File, patience: Patience = {}): Promise<Motion> {
    return this.json("v1/motions", post(form(file)), patience);
  }

  /** The tokenizer's fingerprint goes with its tokens: a server whose model was changed since refuses them. */
  chat({ tokens, mirrored, tokenizer }: Motion, messages: Turn[], patience: Patience = {}): Promise<Answers> {
    const body = JSON.stringify({ tokens, mirrored, tokenizer, messages });
    const request = post(body, { "Content-Type": "application/json" });
    return this.json("v1/chat", request, patience);
  }

  allAnswers(file: File, patience: Patience = {}): Promise<Answers> {
    const body = form(file);
    body.append("tasks", "all");
    return this.json("v1/answers", post(body), patience);
  }

  /** About the person of several recordings: what is the same in all of them. */
  personAnswers(file: File, more: File[], patience: Patience = {}): Promise<Answers> {
    const body = form(file);
    for (const one of more) body.append("more", one, one.name);
    body.append("tasks", "all");
    return this.json("v1/answers", post(body), patience);
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

  /** Sends with the key; asks for the key again on 401, and waits and tries once more on 503. */
  private async send(path: string, request: RequestInit, patience: Patience): Promise<Response> {
    let waited = false;
    for (;;) {
      const key = await this.keys.get();
      const response = await fetchOnce(path, request, key, patience.signal);
      if (response.status === 401) {
        this.keys.refuse(key);
      } else if (response.status === 503 && !waited) {
        waited = true;
        await countdown(retryAfter(response), patience);
      } else if (!response.ok) {
        throw await problem(response);
      } else {
        return response;
      }
    }
  }
}

function form(file: File): FormData {
  const body = new FormData();
  body.append("recording", file, file.name);
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

async function problem(response: Response): Promise<ApiError> {
  try {
    const { code, message } = (await response.json()).error;
    if (typeof message === "string" && message) return new ApiError(String(code), message);
  } catch {
    // Not the API's own error, perhaps a proxy's page.
  }
  if (response.status === 503) return new ApiError("busy", "The server is busy. Try again in a while.");
  return new ApiError("unexpected", `The server answered with an error (HTTP ${response.status}). Try again.`);
}

function retryAfter(response: Response): number {
  const header = response.headers.get("Retry-After");
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

/** What to tell the user while the server is busy. */
export function busyText(secondsLeft: number): string {
  if (secondsLeft === 0) return "Trying again…";
  return `The server is busy. Trying again in ${secondsLeft} s.`;
}

/** The words of any failure; an API error brings its own. */
export function wordsOf(reason: unknown): string {
  if (reason instanceof ApiError) return reason.message;
  console.error(reason);
  return "Something went wrong in this page. Reload it and try again.";
}
