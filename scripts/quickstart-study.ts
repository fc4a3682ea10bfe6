/**
 * Measures the quickstart over several seeds and writes docs/runs/quickstart.json, one object per seed, from which
 * docs/runs/quickstart.md is made. Resumable: seeds that are there already are skipped.
 * Run by hand: `npx tsx scripts/quickstart-study.ts 0 1 2 3 4`.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import os from 'node:os'
import { fileURLToPath } from 'node:url'
import type { Example } from '../lib/data/examples.ts'
import { mean } from '../lib/mean.ts'
import { Policy } from '../lib/policy/policy.ts'
import { directThought, worldPromptTemplate } from '../lib/quickstart/demonstrations.ts'
import { prepareWorld, runMainJob, worldSettings, worldTemplate } from '../lib/quickstart/main-job.ts'
import { measure } from '../lib/quickstart/measure.ts'
import { queryText, type World, type WorldQuestion } from '../lib/quickstart/world.ts'
import { exactMatchScore } from '../lib/rewards/answers.ts'
import { formatScore } from '../lib/rollout/format.ts'
import { parseCompletion } from '../lib/rollout/grammar.ts'
import { SFTTrainer } from '../lib/training/sft-trainer.ts'

const file = fileURLToPath(new URL('../docs/runs/quickstart.json', import.meta.url))

const promptOf = (question: WorldQuestion) => worldPromptTemplate.replace('{question}', question.question)

/** Share of facts that the policy completes rightly after their index heading, greedily: the ceiling of all else. */
async function factRecall(policy: Policy, world: World): Promise<number> {
  const completions = await policy.generate(
    world.facts.map((fact) => ({ prompt: `${queryText(fact.subject, fact.relation)}:` })),
    { temperature: 0, maxNewTokens: 32, stop: ['\n'] },
  )
  return mean(
    completions.map(({ text, requestIndex }) => Number(text.includes(world.facts[requestIndex]!.object))),
  )
}

/** Greedy EM with the first thought given: the fixed phrase of a direct answer, or the beginning of a search. */
async function forced(
  policy: Policy,
  questions: readonly WorldQuestion[],
  beginning: string,
): Promise<number> {
  const completions = await policy.generate(
    questions.map((question) => ({ prompt: promptOf(question) + beginning })),
    { temperature: 0, maxNewTokens: 112, stop: ['</answer>'] },
  )
  return mean(
    completions.map(({ text, requestIndex }) => {
      const answer = parseCompletion(beginning + text).answer ?? ''
      return exactMatchScore(answer, questions[requestIndex]!.golden_answers)
    }),
  )
}

async function twoHop(policy: Policy, world: World) {
  const questions = world.heldOut.filter(({ hops }) => hops.length === 2)
  return {
    questions: questions.length,
    direct: await forced(policy, questions, `<think>${directThought}</think><answer>`),
    searching: await forced(policy, questions, '<think>I need'),
  }
}

/** As many extra SFT steps as SSRL makes, on the policy's own correct samples of the training questions. */
async function trainOnOwnSamples(policy: Policy, world: World, seed: number): Promise<number> {
  const samples = await policy.generate(
    world.train.map((question) => ({ prompt: promptOf(question), n: 32 })),
    { temperature: 1, maxNewTokens: 112, stop: ['</answer>'], seed },
  )
  const examples = samples.flatMap(({ text, requestIndex }): Example[] => {
    const question = world.train[requestIndex]!
    const right = exactMatchScore(parseCompletion(text).answer ?? '', question.golden_answers) === 1
    if (!right || formatScore(text, 'strict') === 0) return []
    return [{ kind: 'completion', line: requestIndex + 1, prompt: promptOf(question), completion: text }]
  })
  const trainer = new SFTTrainer({
    policy,
    train: examples,
    maxSteps: worldSettings.maxSteps,
    batchSize: Math.min(256, examples.length),
    learningRate: worldSettings.learningRate,
    adamBeta2: worldSettings.adamBeta2,
    weightDecay: 0,
    warmupRatio: worldSettings.warmupRatio,
    schedule: 'linear',
    scheduleFloor: worldSettings.scheduleFloor,
    seed,
  })
  await trainer.run()
  return examples.length
}

async function study(seed: number) {
  const output = `runs/study-${seed}`
  await rm(output, { recursive: true, force: true }) // of a study that was cut off
  const started = performance.now()
  const seconds = () => Math.round((performance.now() - started) / 1000)
  const job = await prepareWorld(seed)
  const pretrained = seconds()
  await job.policy.save(`${output}/before`)
  const before = {
    recall: await factRecall(job.policy, job.world),
    twoHop: await twoHop(job.policy, job.world),
  }
  const startOfJob = seconds()
  const report = await runMainJob(job, { output, seed })
  const mainJob = seconds() - startOfJob
  const after = {
    recall: await factRecall(job.policy, job.world),
    twoHop: await twoHop(job.policy, job.world),
  }
  job.policy.dispose()

  const own = await Policy.load(`${output}/before`)
  const correctSamples = await trainOnOwnSamples(own, job.world, seed)
  const ownSamples = await measure(own, job.heldOut, {
    promptTemplate: worldTemplate,
    maxNewTokens: worldSettings.maxCompletionLength,
    sampledQuestions: 64,
    samples: 16,
    seed,
  })
  own.dispose()
  await rm(output, { recursive: true, force: true })
  const figures = ({ greedy, ...rest }: typeof ownSamples) => rest
  return {
    seed,
    cpu: os.cpus()[0]?.model,
    seconds: { pretraining: pretrained, mainJob },
    before: { ...figures(report.before), ...before },
    after: { ...figures(report.after), ...after },
    ownSamples: { correctSamples, ...figures(ownSamples) },
    reward: report.records.map((record) => Number(record.reward.mean.toFixed(3))),
    sampledFormat: report.records.map((record) => Number(record.format.mean.toFixed(3))),
    mismatch: Math.max(...report.records.map((record) => record.mismatch)),
    tokensPerSecond: report.records.at(-1)!.tokensPerSecond,
  }
}

const results: { seed: number }[] = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []
for (const seed of process.argv.slice(2).map(Number)) {
  if (results.some((result) => result.seed === seed)) continue
  const result = await study(seed)
  results.push(result)
  results.sort((a, b) => a.seed - b.seed)
  writeFileSync(file, `${JSON.stringify(results, null, 2)}\n`)
  process.stderr.write(
    `seed ${seed}: ${JSON.stringify({ ...result, reward: undefined, sampledFormat: undefined })}\n`,
  )
}
