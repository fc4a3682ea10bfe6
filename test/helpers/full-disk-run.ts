/**
 * Run by test/training/full-disk.test.ts in a process of its own, on a small file system that it may fill: does what a
 * user would do and prints what came of it as JSON, one fact a line of the test.
 */
import { mkdir, open, readdir, rm, statfs } from 'node:fs/promises'
import path from 'node:path'
import type { Example } from '../../lib/data/examples.ts'
import { JsonlWriter, readJsonl } from '../../lib/logging/jsonl.ts'
import { exportGguf } from '../../lib/policy/export.ts'
import { Policy } from '../../lib/policy/policy.ts'
import { SFTTrainer } from '../../lib/training/sft-trainer.ts'
import { SSRLTrainer } from '../../lib/training/ssrl-trainer.ts'
import { withoutTimes } from '../../lib/training/step-record.ts'
import { byteTokenizer } from './byte-policy.ts'
import { questions, shortTemplate, tinyPolicy } from './tiny-policy.ts'

export interface Failure {
  name: string
  code: string
  message: string
}

export interface TrainerFacts {
  /** Errors with some room left (the checkpoint does not fit), and with none (the records do not either). */
  checkpointFailure: Failure
  recordFailure: Failure
  /** The step whose records did not fit. */
  failedAt: number
  /** Errors of save() by how many bytes were left. */
  saveFailures: Record<number, Failure>
  /** What is in the checkpoints folder while the disk is full; steps of the trainer resumed from it. */
  kept: string[]
  resumedAt: number
  steps: object[]
  undisturbed: object[]
  keptAtEnd: string[]
}

export interface PolicyFacts {
  failures: Record<number, Failure>
  /** Names in the folder while the disk is full, and whether what was saved before still loads. */
  left: string[]
  loads: boolean
  /** Whether the same call succeeds once there is room. */
  after: boolean
}

export interface FullDiskFacts {
  ssrl: TrainerFacts
  sft: TrainerFacts
  save: PolicyFacts
  gguf: PolicyFacts
  lines: { failure: Failure; records: object[] }
}

const disk = process.argv[2]!
const ballast = path.join(disk, 'ballast')
const page = 4096

/** Fills the disk but for `left` bytes. */
async function fill(left: number): Promise<void> {
  await rm(ballast, { force: true })
  const { bavail, bsize } = await statfs(disk)
  const handle = await open(ballast, 'w')
  await handle.writeFile(Buffer.alloc(Math.max(0, bavail * bsize - left)))
  await handle.close()
}

const empty = () => rm(ballast, { force: true })

async function failureOf(work: () => Promise<unknown>): Promise<Failure> {
  try {
    await work()
    return { name: 'none', code: 'none', message: 'it succeeded' }
  } catch (error) {
    const { name, code, message } = error as Failure
    return { name, code, message }
  }
}

async function failuresByRoom(rooms: readonly number[], work: () => Promise<unknown>) {
  const failures: Record<number, Failure> = {}
  for (const room of rooms) {
    await fill(room)
    failures[room] = await failureOf(work)
  }
  return failures
}

const examples = (count: number): Example[] =>
  Array.from({ length: count }, (_, index) => ({
    kind: 'completion',
    line: index + 1,
    prompt: `Question: number ${index}?\n`,
    completion: `<answer> ${index} </answer>`,
  }))

const shared = { promptTemplate: shortTemplate, learningRate: 1e-3, maxSteps: 30, saveEvery: 1, keep: 50 }
const trainers = {
  ssrl: {
    make: (policy: Policy, outputDirectory?: string) =>
      new SSRLTrainer({
        ...shared,
        policy,
        outputDirectory,
        train: questions(6),
        rewards: (all) => all.map(({ text }) => text.length % 5),
        promptsPerStep: 2,
        numGenerations: 2,
        maxCompletionLength: 8,
        beta: 0,
      }),
    resume: (directory: string) =>
      SSRLTrainer.resume(directory, { rewards: (all) => all.map(({ text }) => text.length % 5) }),
  },
  sft: {
    make: (policy: Policy, outputDirectory?: string) =>
      new SFTTrainer({ ...shared, policy, outputDirectory, train: examples(6), batchSize: 2 }),
    resume: (directory: string) => SFTTrainer.resume(directory),
  },
}

type Trainer = ReturnType<(typeof trainers)['ssrl' | 'sft']['make']>

async function collect(trainer: Trainer, records: object[], steps = Number.POSITIVE_INFINITY) {
  for await (const record of trainer.train()) {
    records.push(withoutTimes(record as never))
    if (trainer.step >= steps) break
  }
}

async function runTrainer(kind: 'ssrl' | 'sft'): Promise<TrainerFacts> {
  const { make, resume } = trainers[kind]
  const reference = await tinyPolicy()
  const undisturbed: object[] = []
  await collect(make(reference), undisturbed)

  const output = path.join(disk, kind)
  const checkpoints = path.join(output, 'checkpoints')
  const policy = await tinyPolicy()
  const trainer = make(policy, output)
  const seen: object[] = []
  await collect(trainer, seen, 1)
  await fill(40 * page)
  const checkpointFailure = await failureOf(() => collect(trainer, seen))
  const saveFailures = await failuresByRoom([0, page, 10 * page, 60 * page], () => trainer.save())
  await fill(0)
  // Records are short: some more go into the pages that their files have already.
  let recordFailure = checkpointFailure
  while (recordFailure.code === 'ERR_CHECKPOINT')
    recordFailure = await failureOf(() => collect(trainer, seen))
  const failedAt = trainer.step
  const kept = await readdir(checkpoints)
  const resumed = await resume(path.join(checkpoints, 'step-000001'))
  const resumedAt = resumed.step
  await resumed.policy.dispose()
  await empty()
  await collect(trainer, seen)
  await policy.dispose()
  await reference.dispose()
  const steps = (await readJsonl(path.join(output, 'steps.jsonl'))).map((record) =>
    withoutTimes(record as never),
  )
  const keptAtEnd = (await readdir(checkpoints)).sort()
  await rm(output, { recursive: true })
  return {
    checkpointFailure,
    recordFailure,
    failedAt,
    saveFailures,
    kept,
    resumedAt,
    steps,
    undisturbed,
    keptAtEnd,
  }
}

async function runPolicy(name: string, write: (policy: Policy, target: string) => Promise<unknown>) {
  const folder = path.join(disk, 'policies')
  const target = path.join(folder, name)
  const tokenizer = byteTokenizer()
  await using tiny = await tinyPolicy()
  const config = { ...tiny.config, vocabSize: tokenizer.vocabSize, eosTokenIds: tokenizer.endTokenIds() }
  await using policy = await Policy.initialize(config, { tokenizer, seed: 1 })
  await mkdir(folder)
  await write(policy, target)
  const failures = await failuresByRoom([0, page, 10 * page], () => write(policy, target))
  const left = await readdir(folder)
  const loads = await Policy.load(target).then(
    (loaded) => loaded.dispose().then(() => true),
    () => false,
  )
  await empty()
  const after = (await failureOf(() => write(policy, target))).name === 'none'
  await rm(folder, { recursive: true })
  return { failures, left, loads, after }
}

async function runLines(): Promise<FullDiskFacts['lines']> {
  const file = path.join(disk, 'lines.jsonl')
  const writer = new JsonlWriter(file)
  await writer.append({ step: 1 })
  await fill(page)
  // Some of it fits: the file's own page, and the one that is left.
  const failure = await failureOf(() => writer.append({ step: 2, text: 'x'.repeat(3 * page) }))
  await empty()
  await writer.append({ step: 3 })
  return { failure, records: await readJsonl(file) }
}

const facts: FullDiskFacts = {
  ssrl: await runTrainer('ssrl'),
  sft: await runTrainer('sft'),
  save: await runPolicy('folder', (policy, target) => policy.save(target)),
  gguf: await runPolicy('policy.gguf', (policy, target) => exportGguf(policy, target)),
  lines: await runLines(),
}
process.stdout.write(JSON.stringify(facts))
