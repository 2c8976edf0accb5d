import { describe, expect, test, vi } from "vitest";

import { Api, ApiError, busyText, retryAfter, wordsOf } from "../src/api";
import type { Keys } from "../src/key";

/** Keys without a dialog. `refused` lists the keys that the server did not accept. */
class FakeKeys {
  refused: string[] = [];
  private readonly keys = ["first", "second"];

  get(): Promise<string> {
    return Promise.resolve(this.keys[0]!);
  }

  refuse(key: string): void {
    this.refused.push(key);
    this.keys.shift();
  }
}

function json(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers });
}

function apiOf(...responses: Response[]) {
  const keys = new FakeKeys();
  const fetch = vi.fn<(path: string, request: RequestInit) => Promise<Response>>();
  for (const response of responses) fetch.mockResolvedValueOnce(response);
  vi.stubGlobal("fetch", fetch);
  return { api: new Api(keys as unknown as Keys), keys, fetch };
}

describe("retryAfter", () => {
  test.each([
    [null, 5],
    ["2", 2],
    ["0", 0],
    ["9999", 120],
    ["soon", 5],
  ])("%s means %d s", (header, seconds) => expect(retryAfter(header)).toBe(seconds));

  test("a date is the time until then", () => {
    expect(retryAfter(new Date(Date.now() + 10_000).toUTCString())).toBeGreaterThanOrEqual(8);
  });
});

test("text while the server is busy", () => {
  expect(busyText(3)).toContain("3 s");
  expect(busyText(0)).toBe("Trying again…");
});

test("an error of the API is shown in its own words, any other in ours", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  expect(wordsOf(new ApiError("bad_request", "tasks: expected all"))).toBe("tasks: expected all");
  expect(wordsOf(new TypeError("x is undefined"))).not.toContain("undefined");
});

describe("Api", () => {
  test("sends the key, and asks for another one after 401", async () => {
    const { api, keys, fetch } = apiOf(json(401, {}), json(200, { examples: [] }));
    expect(await api.examples()).toEqual([]);
    expect(keys.refused).toEqual(["first"]);
    const sent = fetch.mock.calls.map(([, request]) => (request.headers as Record<string, string>).Authorization);
    expect(sent).toEqual(["Bearer first", "Bearer second"]);
  });

  test("waits as long as a busy server says, then sends once more", async () => {
    const waits: number[] = [];
    const { api, fetch } = apiOf(json(503, {}, { "Retry-After": "0" }), json(200, { examples: [] }));
    await api.examples({ onBusy: (left) => waits.push(left) });
    expect(waits).toEqual([0]);
    expect(fetch).toHaveBeenCalledTimes(2);
  });

  test("shows the server's message", async () => {
    const { api } = apiOf(json(422, { error: { code: "bad_recording", message: "a.mot: expected angles" } }));
    await expect(api.examples()).rejects.toMatchObject({ code: "bad_recording", message: "a.mot: expected angles" });
  });

  test("sends additional recordings under the API's field name", async () => {
    const { api, fetch } = apiOf(json(200, { answers: [] }));
    await api.personAnswers(new File(["1"], "a.mot"), [new File(["2"], "b.mot")]);
    const body = fetch.mock.calls[0]![1].body as FormData;
    expect([...body.keys()]).toEqual(["recording", "additional_recordings", "tasks"]);
  });
});
