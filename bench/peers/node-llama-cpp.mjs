// Loading, sampling and the time to the first token with node-llama-cpp on the CPU. A Job from stdin, a Result as the
// last line of stdout. End tokens are ignored, nothing is truncated.
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { getLlama, LlamaLogLevel } from 'node-llama-cpp'

const job = JSON.parse(await text(process.stdin))
const llama = await getLlama({
  gpu: false,
  build: 'never',
  logLevel: LlamaLogLevel.error,
  maxThreads: job.threads,
})
const { values, ...fields } = await { load, generate, prefill }[job.kind]()
const status = readFileSync('/proc/self/status', 'utf8')
const peak = Number(/^VmHWM:\s*(\d+)/m.exec(status)[1]) * 1024
process.stdout.write(`${JSON.stringify({ ...fields, values, peak, version: version() })}\n`)
// Its threads would keep the process; all that counts is written.
process.exit(0)

async function load() {
  const start = performance.now()
  const model = await loadModel()
  await model.createContext({ contextSize: 512, threads: job.threads })
  return { values: [(performance.now() - start) / 1000] }
}

async function generate() {
  const model = await loadModel()
  const rows = job.prompts.flatMap((tokens, i) =>
    Array.from({ length: job.n }, () => ({ tokens, newTokens: job.newTokens[i] })),
  )
  const context = await contextFor(model, rows)
  const sequences = rows.map(() => context.getSequence())
  const greedy = await greedyTokens(sequences)
  const sampling = { temperature: 1, topK: 0, topP: 1, minP: 0 }
  const run = (most = Infinity) =>
    Promise.all(
      rows.map(({ tokens, newTokens }, i) => go(sequences[i], tokens, Math.min(most, newTokens), sampling)),
    )
  const note = job.n > 1 ? 'each row computes its prompt: sequences share no pages' : ''
  return { values: await timed(run, sequences), greedy, note }
}

async function prefill() {
  const model = await loadModel()
  const rows = job.prompts.map((tokens) => ({ tokens, newTokens: 1 }))
  const context = await contextFor(model, rows)
  const sequences = rows.map(() => context.getSequence())
  const run = () => Promise.all(rows.map(({ tokens }, i) => go(sequences[i], tokens, 1, { temperature: 1 })))
  return { values: await timed(run, sequences) }
}

function loadModel() {
  return llama.loadModel({ modelPath: job.model, gpuLayers: 0 })
}

function contextFor(model, rows) {
  return model.createContext({
    sequences: rows.length,
    contextSize: Math.max(...rows.map(({ tokens, newTokens }) => tokens.length + newTokens)) + 8,
    batchSize: 2048,
    threads: job.threads,
  })
}

async function greedyTokens(sequences) {
  if (job.greedyTokens === 0) return []
  const prompts = job.prompts.slice(0, 4)
  const steps = Math.min(job.greedyTokens, ...job.newTokens)
  const tokens = []
  for (const [i, prompt] of prompts.entries()) {
    tokens.push(await go(sequences[i], prompt, steps, { temperature: 0 }))
    await sequences[i].clearHistory()
  }
  return tokens
}

async function go(sequence, prompt, count, sampling) {
  const tokens = []
  for await (const token of sequence.evaluate(prompt, { ...sampling, yieldEogToken: true })) {
    tokens.push(token)
    if (tokens.length === count) break
  }
  if (tokens.length !== count) throw new Error(`Expected ${count} tokens but received ${tokens.length}`)
  return tokens
}

async function timed(run, sequences) {
  const seconds = []
  for (let i = 0; i < job.warmUps + job.repeats; i++) {
    for (const sequence of sequences) await sequence.clearHistory()
    const start = performance.now()
    // The prompts and a few tokens warm everything up; the whole would double the longest cases.
    await run(i < job.warmUps ? 4 : Infinity)
    if (i >= job.warmUps) seconds.push((performance.now() - start) / 1000)
  }
  return seconds
}

/** The package, and the library that it chose for this CPU. */
function version() {
  const manifest = new URL('node_modules/node-llama-cpp/package.json', import.meta.url)
  const libraries = readFileSync('/proc/self/maps', 'utf8').match(/[^/\s]*ggml-cpu[^/\s]*\.so/g) ?? []
  const loaded = [...new Set(libraries)].join(', ') || 'unknown'
  return `node-llama-cpp ${JSON.parse(readFileSync(manifest, 'utf8')).version}, ${loaded}`
}
