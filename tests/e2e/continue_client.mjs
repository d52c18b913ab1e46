// What Continue's adapters see of a server: one line of JSON. Words: the server's address, the model.
import { constructLlmApi } from "@continuedev/openai-adapters";

const [host, model] = process.argv.slice(2);
const messages = [{ role: "user", content: "hi" }];
const seen = {};
for (const [provider, apiBase] of [["ollama", `${host}/v1/`], ["anthropic", `${host}/v1/`]]) {
  const api = constructLlmApi({ provider, apiBase, apiKey: "none" });
  const body = { model, messages, max_tokens: 12, temperature: 0 };
  const { signal } = new AbortController();
  const whole = await api.chatCompletionNonStream({ ...body, stream: false }, signal);
  let streamed = "";
  for await (const part of api.chatCompletionStream({ ...body, stream: true }, signal)) {
    streamed += part.choices[0]?.delta?.content ?? "";
  }
  seen[provider] = { whole: whole.choices[0].message.content, streamed };
}
console.log(JSON.stringify(seen));
