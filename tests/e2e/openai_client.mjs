// What npm's `openai` says to a server at argv[2]; prints one JSON object that the test reads.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const model = (await client.models.list()).data[0].id;
const seen = { model, retrieved: (await client.models.retrieve(model)).id };

const chat = await client.chat.completions.create({ model, messages, max_tokens: 8, temperature: 0 });
seen.chat = chat.choices[0].message.content;
seen.usage = chat.usage;

const stream = await client.chat.completions.create({
  model, messages, max_tokens: 8, temperature: 0, stream: true, stream_options: { include_usage: true },
});
seen.streamed = "";
for await (const chunk of stream) {
  seen.streamed += chunk.choices[0]?.delta?.content ?? "";
  seen.streamedUsage = chunk.usage ?? null;
}

const parameters = {
  type: "object", properties: { on: { type: "boolean" } }, required: ["on"], additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "light", parameters } }];
const called = await client.chat.completions.create({
  model, messages, tools, tool_choice: "required", parallel_tool_calls: false,
});
seen.call = called.choices[0].message.tool_calls[0].function;
seen.finish = called.choices[0].finish_reason;

const format = zodResponseFormat(z.object({ on: z.boolean() }), "answer");
const parsed = await client.chat.completions.parse({ model, messages, response_format: format });
seen.parsed = parsed.choices[0].message.parsed;

const text = await client.completions.create({ model, prompt: "hi", max_tokens: 4, logprobs: 2, echo: true });
seen.logprobs = text.choices[0].logprobs;
seen.embedding = (await client.embeddings.create({ model, input: "hi" })).data[0].embedding;
try {
  await client.chat.completions.create({ model, messages, temperature: 9 });
} catch (error) {
  seen.error = { status: error.status, param: error.param };
}
console.log(JSON.stringify(seen));
