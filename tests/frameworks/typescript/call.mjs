// Calls tools through one of the SDKs and prints what a program on it gets, a line of JSON a call:
// {"result": …} or {"thrown": …}. Standard input: {"url", "headers", "calls": [{"name", "arguments"}]}.
//
//   node call.mjs DIRECTORY sdk-1|sdk-2|sdk-of-gemini-cli

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [directory, kind] = process.argv.slice(2);
const { resolve } = createRequire(join(directory, "package.json"));
const load = (name) => import(pathToFileURL(resolve(name)).href);

async function loadSdk() {
  if (kind === "sdk-2") return load("sdk-2");
  return {
    ...(await load(`${kind}/client/index.js`)),
    ...(await load(`${kind}/client/streamableHttp.js`)),
  };
}

// Gemini CLI puts what the text holds in the place of structured content that is missing, before its
// SDK checks the answer.
function fillStructuredContent(transport) {
  let receive;
  Object.defineProperty(transport, "onmessage", {
    get: () => receive,
    set: (handler) => {
      receive = (message, extra) => {
        const { result } = message;
        if (Array.isArray(result?.content) && !result.structuredContent) {
          try {
            result.structuredContent = JSON.parse(result.content[0].text);
          } catch {
            // No JSON, so no structured content.
          }
        }
        handler(message, extra);
      };
    },
  });
  return transport;
}

const { Client, StreamableHTTPClientTransport } = await loadSdk();
const { url, headers, calls } = JSON.parse(readFileSync(0, "utf8"));
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
const client = new Client({ name: "typescript", version: "1" });
await client.connect(kind === "sdk-of-gemini-cli" ? fillStructuredContent(transport) : transport);
await client.listTools(); // from here on it knows the output schemas, if there are any
for (const call of calls) {
  const answer = await client.callTool(call).then(
    (result) => ({ result }),
    (error) => ({ thrown: String(error) }),
  );
  console.log(JSON.stringify(answer));
}
await client.close();
