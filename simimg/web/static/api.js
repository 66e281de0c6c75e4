// Requests to the server.

async function checked(response) {
  if (response.ok) return response;
  let message = `The server returned status ${response.status}.`;
  try { message = (await response.json()).error ?? message; } catch { /* not JSON: only the status is known */ }
  throw new Error(message);
}

async function ask(path, options) {
  try {
    return await checked(await fetch(path, options));
  } catch (error) {
    if (error instanceof TypeError) throw new Error("The server does not answer. Is simimg serve still running?");
    throw error;
  }
}

export async function json(path, options) {
  return (await ask(path, options)).json();
}

export function send(path, method, value) {
  return json(path, { method, headers: { "content-type": "application/json" }, body: JSON.stringify(value) });
}

export const MAX_BYTES = 32 * 2 ** 20;

export function upload(file) {
  if (file.size > MAX_BYTES) throw new Error("This image is too large. The limit is 32 MB.");
  return json("api/query", { method: "POST", headers: { "content-type": "application/octet-stream" }, body: file });
}

// Calls `receive` with each line of NDJSON as it arrives.
export async function lines(path, signal, receive) {
  const response = await ask(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part) receive(JSON.parse(part));
  }
}

// Returns the values at a path, or null if they still are those of a version.
export async function changed(path, version) {
  const response = await fetch(path, { headers: version ? { "if-none-match": `"${version}"` } : {}, cache: "no-store" });
  return response.status === 304 ? null : (await checked(response)).json();
}
