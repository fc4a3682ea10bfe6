import { spawnSync } from 'node:child_process'
import { createInterface } from 'node:readline'
import { Worker } from 'node:worker_threads'
import test from 'ava'
import { execa } from 'execa'
import { type Completion, Policy } from '../../lib/index.ts'
import { bytePolicy, someTokens } from '../helpers/byte-policy.ts'

const prompt = { tokens: someTokens(20, 3, 256) }

/** A policy without a tokenizer, for processes and threads of their own; the same config everywhere. */
const config = {
  architecture: 'LlamaForCausalLM' as const,
  hiddenSize: 64,
  intermediateSize: 128,
  numLayers: 4,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 16,
  vocabSize: 512,
  maxPositions: 4096,
  rmsNormEps: 1e-5,
  rope: { theta: 10_000, scaling: null },
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  tieWordEmbeddings: true,
  initializerRange: 0.05,
  eosTokenIds: [],
}

const library = JSON.stringify(new URL('../../lib/index.ts', import.meta.url).href)
const native = JSON.stringify(new URL('../../lib/native.ts', import.meta.url).href)
// Threads and processes of their own don't know TypeScript yet.
const prelude = `
  import { register } from ${JSON.stringify(import.meta.resolve('tsx/esm/api'))}
  register()
  const { Policy } = await import(${library})
  const policy = await Policy.initialize(${JSON.stringify(config)}, { seed: 1, dtype: 'f32', threads: 2 })
  const request = { tokens: Int32Array.of(1, 2, 3), seed: 5 }
`

/** Runs a script in a process of its own, which must end by itself. */
function run(script: string) {
  return execa('node', ['--input-type=module', '-e', prelude + script], {
    reject: false,
    timeout: 120_000,
  })
}

function startWorker(script: string): Worker {
  // Code given as text is CommonJS, so the module comes in a URL.
  const url = new URL(`data:text/javascript,${encodeURIComponent(prelude + script)}`)
  return new Worker(url)
}

test('two policies work at once in one process, and each gives what it gives alone', async (t) => {
  const [first, second] = [await bytePolicy(t, { seed: 1 }), await bytePolicy(t, { seed: 2, dtype: 'bf16' })]
  const generate = (policy: Policy) =>
    policy.generate([prompt], { seed: 4, maxNewTokens: 50, ignoreEnd: true })
  const alone = [await generate(first), await generate(second)]
  const together = await Promise.all([generate(first), generate(second), first.score([prompt.tokens])])
  t.deepEqual(together.slice(0, 2) as Completion[][], alone)
})

test('work of different policies takes turns: short work does not wait for long', async (t) => {
  const [long, short] = [await bytePolicy(t, { seed: 1 }), await bytePolicy(t, { seed: 2 })]
  const ended: string[] = []
  await Promise.all([
    long.generate([prompt], { maxNewTokens: 400, ignoreEnd: true }).then(() => ended.push('long')),
    short.generate([prompt], { maxNewTokens: 4, ignoreEnd: true }).then(() => ended.push('short')),
    short.score([prompt.tokens]).then(() => ended.push('score')),
  ])
  t.is(ended.at(-1), 'long')
})

test('the event loop stays free while the policy works', async (t) => {
  const policy = await bytePolicy(t)
  let turns = 0
  let isDone = false
  const turn = () => {
    turns++
    if (!isDone) setImmediate(turn)
  }
  setImmediate(turn)
  await policy.generate([{ ...prompt, n: 8 }], { maxNewTokens: 300, ignoreEnd: true })
  isDone = true
  // A blocked loop would have turned a handful of times in all.
  t.true(turns > 100, `${turns} turns`)
})

test('a worker thread loads the addon, and gives the same tokens as the main thread', async (t) => {
  const worker = startWorker(`
    import { parentPort } from 'node:worker_threads'
    const [completion] = await policy.generate([request], { maxNewTokens: 20 })
    parentPort.postMessage({ tokens: completion.tokens, logProbs: completion.logProbs })
    await policy.dispose()`)
  const exited = new Promise((resolve) => worker.once('exit', resolve))
  const message = await new Promise((resolve, reject) => {
    worker.once('message', resolve)
    worker.once('error', reject)
  })
  t.is(await exited, 0)
  const policy = await Policy.initialize(config, { seed: 1, dtype: 'f32', threads: 2 })
  t.teardown(() => policy.dispose())
  const [expected] = await policy.generate([{ tokens: Int32Array.of(1, 2, 3), seed: 5 }], {
    maxNewTokens: 20,
  })
  t.deepEqual(message, { tokens: expected!.tokens, logProbs: expected!.logProbs })
})

test('a worker thread that is ended in the middle of its work disturbs nobody', async (t) => {
  const policy = await bytePolicy(t)
  for (let round = 0; round < 3; round++) {
    const worker = startWorker(
      `
      import { parentPort } from 'node:worker_threads'
      const running = policy.generate([request], { maxNewTokens: 4000, ignoreEnd: true })
      const scoring = policy.score(Array.from({ length: 50 }, () => new Int32Array(2000).fill(round)))
      parentPort.postMessage('working')
      await running`.replace('fill(round)', `fill(${round})`),
    )
    await new Promise((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    const mine = policy.generate([prompt], { seed: 1, maxNewTokens: 30, ignoreEnd: true })
    await worker.terminate()
    t.is((await mine)[0]!.tokens.length, 30)
  }
})

const endings: Record<string, { script: string; exitCode: number; stdout: string }> = {
  'process.exit in the middle of work': {
    script: `
      policy.generate([request], { maxNewTokens: 4000, ignoreEnd: true })
      policy.score(Array.from({ length: 50 }, () => new Int32Array(2000).fill(1)))
      setTimeout(() => { console.log('leaving'); process.exit(7) }, 50)`,
    exitCode: 7,
    stdout: 'leaving',
  },
  'an uncaught error in the middle of work': {
    script: `
      policy.generate([request], { maxNewTokens: 4000, ignoreEnd: true }).catch(() => {})
      setTimeout(() => { console.log('failing'); throw new Error('mine') }, 50)`,
    exitCode: 1,
    stdout: 'failing',
  },
  'leaving without dispose': {
    script: `console.log((await policy.generate([request], { maxNewTokens: 5 })).length)`,
    exitCode: 0,
    stdout: '1',
  },
  'leaving with work that nobody waits for: it is finished': {
    script: `policy.generate([request], { maxNewTokens: 50 }).then(() => console.log('finished'))`,
    exitCode: 0,
    stdout: 'finished',
  },
  'a policy that is forgotten while it works: the work is finished, then its memory is free': {
    script: `
      const { loadNative } = await import(${native})
      import v8 from 'node:v8'
      import vm from 'node:vm'
      v8.setFlagsFromString('--expose-gc')
      const gc = vm.runInNewContext('gc')
      const before = loadNative().environment().memoryHeld
      const working = (async () => {
        const other = await Policy.initialize(policy.config, { seed: 2, dtype: 'f32', threads: 2 })
        return other.generate([request], { maxNewTokens: 200, ignoreEnd: true })
      })()
      let isDone = false
      working.then(() => { isDone = true })
      while (!isDone) { gc(); await new Promise((resolve) => setTimeout(resolve, 30)) }
      console.log((await working)[0].tokens.length)
      for (let i = 0; i < 200 && loadNative().environment().memoryHeld > before; i++) {
        gc()
        await new Promise((resolve) => setTimeout(resolve, 30))
      }
      console.log(loadNative().environment().memoryHeld === before)
      await policy.dispose()
      console.log(loadNative().environment().memoryHeld)`,
    exitCode: 0,
    stdout: '200\ntrue\n0',
  },
}

for (const [title, { script, exitCode, stdout }] of Object.entries(endings)) {
  test(`a process ends cleanly: ${title}`, async (t) => {
    const result = await run(script)
    t.false(result.timedOut)
    t.is(result.signal, undefined, result.stderr)
    t.is(result.exitCode, exitCode, result.stderr)
    t.is(result.stdout, stdout)
  })
}

const limited = process.platform === 'linux' && spawnSync('prlimit', ['--version']).status === 0

/** Tells the child to go on, and gives its next line. */
function converse(child: ReturnType<typeof execa>): (word?: string) => Promise<string> {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
  return async (word) => {
    if (word !== undefined) child.stdin!.write(`${word}\n`)
    return String((await lines.next()).value)
  }
}

const hasThreadsToTry = `
  import { createInterface } from 'node:readline'
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  const { loadNative } = await import(${native})
  loadNative()
  await Promise.all(Array.from({ length: 8 }, () => readFile('/dev/null')))
  const attempt = async (threads) => {
    try {
      const policy = await Policy.initialize(config, { seed: 1, dtype: 'f32', threads })
      await policy.generate([{ tokens: Int32Array.of(1, 2, 3) }], { maxNewTokens: 2 })
      return 'worked'
    } catch (error) {
      return error.constructor.name + ' ' + error.code + ' ' + error.message
    }
  }
  console.log('ready')
  for await (const line of lines) {
    if (line === 'end') break
    console.log(await attempt(Number(line)))
  }
  process.exit(0)`

const refusing = limited ? test : test.skip
refusing(
  `threads that the system refuses are ERR_OUT_OF_MEMORY, and later calls work${limited ? '' : ' (needs prlimit)'}`,
  async (t) => {
    t.timeout(60_000)
    const script = `
      import { register } from ${JSON.stringify(import.meta.resolve('tsx/esm/api'))}
      import { readFile } from 'node:fs/promises'
      register()
      const { Policy } = await import(${library})
      const config = ${JSON.stringify(config)}
      ${hasThreadsToTry}`
    // The limit does not bind root.
    const user = process.getuid!() === 0 ? { uid: 65_534, gid: 65_534, env: { HOME: '/' } } : {}
    const child = execa('node', ['--input-type=module', '-e', script], { ...user, reject: false })
    const say = converse(child)
    t.teardown(() => child.kill())
    const allow = (threads: string) =>
      execa('prlimit', ['--pid', String(child.pid), `--nproc=${threads}:`], user)
    t.is(await say(), 'ready')
    await allow('1')
    t.regex(await say('1'), /^SsrlError ERR_OUT_OF_MEMORY Expected 1 thread to compute on/)
    t.regex(await say('3'), /^SsrlError ERR_OUT_OF_MEMORY Expected 3 threads to compute on .*ulimit -u/)
    await allow('4096')
    t.is(await say('1'), 'worked')
    await allow('1')
    t.regex(await say('2'), /^SsrlError ERR_OUT_OF_MEMORY Expected 2 threads to compute on/)
    await allow('4096')
    t.is(await say('3'), 'worked')
    child.stdin!.write('end\n')
    t.is((await child).exitCode, 0)
  },
)
