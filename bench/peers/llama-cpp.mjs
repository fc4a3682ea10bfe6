// Greedy decoding with node-llama-cpp on the CPU. Reads { model, prompts, newTokens, threads, texts } from stdin, writes
// { tokens, seconds, ids, version } to stdout. The KV cache is F32: its default, F16, decides near ties.
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp'

const { model: modelPath, prompts, newTokens, threads, texts } = JSON.parse(await text(process.stdin))
const llama = await getLlama({
  gpu: false,
  build: 'never',
  logLevel: LlamaLogLevel.error,
  maxThreads: threads,
})
const model = await llama.loadModel({ modelPath, gpuLayers: 0 })
const ids = texts.map((prompt) => [...model.tokenize(prompt, true)])
const context = await model.createContext({
  contextSize: Math.max(...prompts.map((prompt) => prompt.length)) + newTokens + 8,
  threads,
  flashAttention: false,
  experimentalKvCacheKeyType: 'F32',
  experimentalKvCacheValueType: 'F32',
})
const sequence = context.getSequence()
const tokens = []
let seconds = 0
for (const prompt of prompts) {
  await sequence.clearHistory()
  const start = performance.now()
  const row = []
  for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    row.push(token)
    if (row.length === newTokens) break
  }
  seconds += (performance.now() - start) / 1000
  tokens.push(row)
}
const manifest = new URL('node_modules/node-llama-cpp/package.json', import.meta.url)
const version = `node-llama-cpp ${JSON.parse(await readFile(manifest, 'utf8')).version}`
process.stdout.write(JSON.stringify({ tokens, seconds, ids, version }))
await llama.dispose()
