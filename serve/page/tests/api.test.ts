import { describe, expect, test, vi } from "vitest";

import { Api, ApiError, busyText, type Motion, problemOf, retryAfter, wordsOf } from "../src/api";
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

test("an error is shown in words for people, with the server's own words as the detail", () => {
  vi.spyOn(console, "error").mockImplementation(() => {});
  const { text, detail } = problemOf(new ApiError("bad_recording", "a.mot, column knee: expected numbers"));
  expect(text).toContain("cannot be used");
  expect(detail).toBe("a.mot, column knee: expected numbers");
  expect(problemOf(new ApiError("unreachable", "No connection.")).text).toBe("No connection.");
  expect(wordsOf(new ApiError("bad_request", "tasks: expected all"))).toContain("tasks: expected all");
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

  test("sends additional recordings and the person under the API's field names", async () => {
    const { api, fetch } = apiOf(json(200, { answers: [] }));
    const person = { age: "62", sex: "female" };
    await api.personAnswers(new File(["1"], "a.mot"), [new File(["2"], "b.mot")], person);
    const body = fetch.mock.calls[0]![1].body as FormData;
    expect([...body.keys()]).toEqual(["recording", "age", "sex", "additional_recordings", "tasks"]);
  });

  test("a chat about two recordings sends both in one form", async () => {
    const motion = (token: number) => ({ tokens: [token], views: [[token + 1]], tokenizer: "t", analysis: { steps: token } }) as unknown as Motion;
    const { api, fetch } = apiOf(json(200, { answers: [] }), json(200, { answers: [] }));
    await api.chat(motion(1), motion(3), [{ role: "user", content: "Who is faster?" }]);
    await api.chat(motion(1), null, [{ role: "user", content: "Why?" }]);
    const [both, one] = fetch.mock.calls.map(([, request]) => JSON.parse(String(request.body)));
    expect(both).toMatchObject({ tokens: [[1], [3]], views: [[[2]], [[4]]], tokenizer: "t", analysis: [{ steps: 1 }, { steps: 3 }] });
    expect(one).toMatchObject({ tokens: [1], views: [[2]] });
  });
});
