import { existsSync } from 'node:fs'
import path from 'node:path'
import { Command } from 'commander'
import { loadQuestions } from '../data/questions.ts'
import { SsrlError } from '../errors.ts'
import { Progress } from '../logging/progress.ts'
import { Policy } from '../policy/policy.ts'
import {
  type MainJob,
  type MainJobOptions,
  type MainJobReport,
  mostTelling,
  ownSettings,
  prepareWorld,
  runMainJob,
  sampledQuestions,
} from '../quickstart/main-job.ts'
import { blocksOnLines, sideBySide, textTable } from '../quickstart/report.ts'
import { loadPromptTemplate } from '../rollout/prompts.ts'
import { integer, note, number, print, printJson } from './common.ts'
import { onInterrupt } from './interrupt.ts'

interface QuickstartOptions {
  policy?: string
  train?: string
  eval?: string
  limit?: number
  output?: string
  seed: number
  steps?: number
  learningRate?: number
  promptTemplate?: string
  threads?: number
  json?: boolean
}

/** Held-out questions that one's own policy is measured on; all of them could take longer than the training. */
const defaultLimit = 200

/** `ssrl quickstart`: the main job on the embedded small world, or on one's own policy and questions. */
export function quickstartCommand(): Command {
  return new Command('quickstart')
    .description('watch a policy learn to search its own memory: measure, train, measure again')
    .option('-p, --policy <source>', 'your own policy (with --train and --eval) instead of the small world')
    .option('--train <file>', 'your own training questions, JSONL or parquet')
    .option('--eval <file>', 'your own held-out questions')
    .option(
      '--limit <n>',
      `with --policy: measure on the first so many held-out questions (default: ${defaultLimit})`,
      integer({ min: 1 }),
    )
    .option(
      '-o, --output <folder>',
      'where records, trajectories and the policy go (default: a new folder under runs)',
    )
    .option('--seed <n>', 'seed of the world, of pretraining and of sampling', integer({ min: 0 }), 0)
    .option('--steps <n>', 'optimizer steps of SSRL', integer({ min: 1 }))
    .option('--learning-rate <x>', 'learning rate of SSRL', number({ above: 0 }))
    .option('--prompt-template <name>', 'with --policy: a built-in wording or a file with {question}')
    .option('--threads <n>', 'with --policy: compute threads', integer({ min: 1 }))
    .option('--json', 'print the figures as JSON')
    .action(quickstart)
}

async function quickstart(options: QuickstartOptions): Promise<void> {
  const interrupt = onInterrupt('stopping after this step; once more to leave at once')
  const started = performance.now()
  const { signal } = interrupt
  const output = options.output ?? newFolder('runs/quickstart')
  let job: MainJob | undefined
  try {
    job = options.policy === undefined ? await smallWorld(options, signal) : await ownJob(options, signal)
    if (options.steps !== undefined) job.settings = { ...job.settings, maxSteps: options.steps }
    if (options.learningRate !== undefined)
      job.settings = { ...job.settings, learningRate: options.learningRate }
    const report = await runMainJob(job, {
      output,
      seed: options.seed,
      onWarning: (message) => note(`warning: ${message}`),
      ...progressOf(job),
      signal,
    })
    const seconds = (performance.now() - started) / 1000
    if (options.json) printJson(jsonReport(report, seconds))
    else printReport(report, seconds, options)
  } finally {
    job?.policy.dispose()
    interrupt.dispose()
  }
}

/** Flags that the small world has no use for; it would be wrong to pass over them in silence. */
const ownFlags = {
  train: '--train',
  eval: '--eval',
  limit: '--limit',
  promptTemplate: '--prompt-template',
  threads: '--threads',
} as const

async function smallWorld(options: QuickstartOptions, signal: AbortSignal) {
  for (const [name, flag] of Object.entries(ownFlags)) {
    if (options[name as keyof typeof ownFlags] === undefined) continue
    throw new SsrlError(
      'ERR_INVALID_ARG',
      `Expected --policy, --train and --eval beside ${flag}: the small world has questions and settings of its own`,
    )
  }
  note(
    'A small world of invented people, cities and companies; a policy of 1.5 M parameters reads its facts first.',
  )
  let progress: Progress | undefined
  const job = await prepareWorld(options.seed, {
    signal,
    onStep: (step, steps, loss) => {
      progress ??= new Progress({ total: steps, label: 'pretraining', interval: 5000 })
      progress.update(step, `loss ${loss.toFixed(2)}`)
    },
  })
  progress?.finish()
  return job
}

async function ownJob(options: QuickstartOptions, signal: AbortSignal): Promise<MainJob> {
  if (options.train === undefined || options.eval === undefined) {
    throw new SsrlError('ERR_INVALID_ARG', 'Expected --train and --eval beside --policy')
  }
  const report = (file: string) => (found: { kept: number; rows: number }) =>
    note(`${file}: ${found.kept} questions of ${found.rows} rows`)
  const train = await loadQuestions(options.train, { onReport: report(options.train), signal })
  const evaluation = await loadQuestions(options.eval, { onReport: report(options.eval), signal })
  const heldOut = evaluation.slice(0, options.limit ?? defaultLimit)
  const sampled = Math.min(sampledQuestions, heldOut.length)
  note(
    `measured on ${heldOut.length} of ${evaluation.length} held-out questions (--limit), sampled on ${sampled} of these`,
  )
  return {
    train,
    heldOut,
    promptTemplate: await loadPromptTemplate(options.promptTemplate),
    settings: ownSettings,
    policy: await Policy.load(options.policy!, { threads: options.threads, signal }),
  }
}

/** The folder of that name, or the first of name-2, name-3, … that does not exist yet. */
function newFolder(name: string): string {
  for (let i = 1; ; i++) {
    const candidate = i === 1 ? name : `${name}-${i}`
    if (!existsSync(candidate)) return candidate
  }
}

const phaseNotes = {
  before: 'Measuring held-out questions before training…',
  train: 'Self-search RL…',
  after: 'Measuring the same questions after training…',
  save: 'Saving…',
}

function progressOf(job: MainJob): Pick<MainJobOptions, 'onPhase' | 'onStep'> {
  let progress: Progress | undefined
  return {
    onPhase: (phase) => {
      progress?.finish()
      progress = undefined
      note(phaseNotes[phase])
      if (phase === 'train')
        progress = new Progress({ total: job.settings.maxSteps!, label: 'step', interval: 5000 })
    },
    onStep: (record) =>
      progress?.update(
        record.step,
        `reward ${record.reward.mean.toFixed(2)} · format ${record.format.mean.toFixed(2)} · EM ${figure(record.exactMatch.mean ?? undefined)}`,
      ),
  }
}

const figure = (value: number | undefined) => (value === undefined ? '–' : value.toFixed(2))

function printReport(report: MainJobReport, seconds: number, options: QuickstartOptions): void {
  const { before, after, saved } = report
  const row = (name: string, value: (m: typeof before) => number | undefined) => [
    name,
    figure(value(before)),
    figure(value(after)),
  ]
  const best = String(Math.max(...Object.keys(after.pass).map(Number)))
  const columns = process.stdout.columns ?? 100
  const shown = mostTelling(before, after)
  const { question, text } = before.greedy[shown]!
  print()
  print(
    textTable([
      ['held-out questions', 'before', 'after'],
      row('format (sampled)', (m) => m.format),
      row('greedy EM', (m) => m.greedyExactMatch),
      row('pass@1 (sampled EM)', (m) => m.pass['1']),
      row(`pass@${best}`, (m) => m.pass[best]),
    ]),
  )
  print(`\n${question.question}  (answer: ${question.goldenAnswers.join(' / ')})\n`)
  print(
    sideBySide(
      ['before', blocksOnLines(text)],
      ['after', blocksOnLines(after.greedy[shown]!.text)],
      Math.min(columns, 120),
    ),
  )
  print(`\n${Math.round(seconds)} s in all. The policy is in ${saved}; records and trajectories beside it.`)
  if (after.wellFormed < 0.2) print(coldStartAdvice)
  print(nextSteps(saved, options))
}

const coldStartAdvice =
  'It hardly writes the tags, so the reward has nothing to choose from: give it a cold start with `ssrl bootstrap` and `ssrl sft` first.'

function nextSteps(saved: string, options: QuickstartOptions): string {
  const own = options.policy !== undefined
  const generate = `npx ssrl generate --policy ${saved} --temperature 0`
  return [
    'Try next:',
    own
      ? `  ${generate} --chat --prompt "…"`
      : `  printf 'Question: In which country is Arvane?\\n' | ${generate}`,
    `  npx ssrl inspect ${path.dirname(saved)}`,
    own
      ? '  npx ssrl train --help   (every setting)'
      : '  npx ssrl quickstart --policy MODEL --train QUESTIONS.jsonl --eval HELD-OUT.jsonl   (your own)',
  ].join('\n')
}

function jsonReport({ before, after, records, saved }: MainJobReport, seconds: number) {
  const figures = ({ format, wellFormed, greedyExactMatch, pass }: typeof before) => ({
    format,
    wellFormed,
    greedyExactMatch,
    pass,
  })
  return {
    questions: before.greedy.length,
    before: figures(before),
    after: figures(after),
    rewards: records.map((record) => record.reward.mean),
    saved,
    seconds,
  }
}
