// Uses a server as a program on one of the TypeScript SDKs does. Standard input: {"url", "headers",
// "session", "modes", "folder"}; each mode is a connection of its own, the SDK is installed in the folder.
//
//   node drive.mjs PACKAGE

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const kind = process.argv[2];
const { url, headers, session, modes, folder } = JSON.parse(readFileSync(0, "utf8"));
const { resolve } = createRequire(join(folder, "package.json"));
const load = (name) => import(pathToFileURL(resolve(name)).href);
const { Client, StreamableHTTPClientTransport } =
  kind === "sdk-2"
    ? await load("sdk-2")
    : {
        ...(await load(`${kind}/client/index.js`)),
        ...(await load(`${kind}/client/streamableHttp.js`)),
      };

for (const mode of modes) {
  const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } });
  const options = mode === "" ? {} : { versionNegotiation: { mode } };
  const client = new Client({ name: "typescript", version: "1" }, { capabilities: { roots: { listChanged: true } }, ...options });
  await client.connect(transport);
  const callTool = (params, options) =>
    kind === "sdk-2" ? client.callTool(params, options) : client.callTool(params, undefined, options);
  const steps = [
    () => client.ping(),
    () => client.listTools(),
    () => callTool({ name: "list_sessions", arguments: {} }),
    () => callTool({ name: "list_sessions" }),
    () => callTool({ name: "add_message", arguments: { session_id: session, content: "From TypeScript: é \u{1f600}" } }),
    () => callTool({ name: "get_messages", arguments: { session_id: session, limit: 5 } }, { onprogress: () => {} }),
    () => callTool({ name: "add_message", arguments: { session_id: session } }),
    () => callTool({ name: "no_such_tool", arguments: {} }),
    () => callTool({ name: "get_memory", arguments: { key: "missing" } }),
    () => client.listResources(),
    () => client.listResourceTemplates(),
    () => client.readResource({ uri: `session://${session}` }),
    () => client.readResource({ uri: "session://session_none" }),
    () => client.listPrompts(),
    () => client.getPrompt({ name: "catch_up", arguments: { session_id: session } }),
    () => client.setLoggingLevel("info"),
    () => client.sendRootsListChanged(),
    () => callTool({ name: "wait_for_messages", arguments: { session_id: session, timeout_seconds: 0.3 } }, { signal: AbortSignal.timeout(100) }),
    () => client.listTools(),
  ];
  for (const [index, step] of steps.entries()) {
    await step().catch((error) => console.log(`${JSON.stringify(mode)} step ${index}: ${error}`));
  }
  await transport.terminateSession?.().catch(() => {});
  await client.close();
}
