// What Ollama's client for JavaScript sees of a server: one line of JSON. Words: the server's address, the model.
import { Ollama } from "ollama";

const [host, model] = process.argv.slice(2);
const client = new Ollama({ host });
const messages = [{ role: "user", content: "hi" }];
const options = { temperature: 0, num_predict: 12 };
const seen = {};

seen.list = (await client.list()).models.map((each) => each.name);
seen.show = (await client.show({ model })).capabilities;
seen.chat = (await client.chat({ model, messages, options })).message.content;
seen.streamed = "";
for await (const part of await client.chat({ model, messages, options, stream: true })) {
  seen.streamed += part.message.content;
  seen.last = part;
}
seen.generate = (await client.generate({ model, prompt: "hi", options })).response;
const format = {
  type: "object",
  properties: { on: { type: "boolean" } },
  required: ["on"],
  additionalProperties: false,
};
seen.format = (await client.chat({ model, messages, format, options: { num_predict: 200, seed: 1 } })).message.content;
const tools = [{ type: "function", function: { name: "light", description: "Switch it.", parameters: format } }];
seen.tools = (await client.chat({ model, messages, tools, options })).message.role;
seen.embed = (await client.embed({ model, input: ["a", "b"] })).embeddings.length;
seen.ps = (await client.ps()).models.map((each) => each.name);
seen.version = (await client.version()).version;
try {
  await client.chat({ model: "nope", messages });
} catch (error) {
  seen.error = [error.status_code, error.message];
}
console.log(JSON.stringify(seen));
