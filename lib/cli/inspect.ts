import { Command } from 'commander'
import { inspectPolicy, type PolicyReport } from '../policy/inspect.ts'
import { print, printJson } from './common.ts'
import { describeRun, isRunFolder, type RunReport } from './inspect-run.ts'

interface InspectFlags {
  revision?: string
  json?: boolean
}

/** `ssrl inspect`: what a policy or a run folder is, and what it needs. */
export function inspectCommand(): Command {
  return new Command('inspect')
    .description(
      'Say what a policy or a run folder is: its model, sizes, tokenizer, and the memory that it needs. Weights are not loaded.',
    )
    .argument('<source>', 'a model folder, a .gguf file, org/name on the hub, or the output folder of a run')
    .option('--revision <name>', 'branch, tag or commit on the hub')
    .option('--json', 'print the report as JSON')
    .action(inspect)
}

async function inspect(source: string, flags: InspectFlags): Promise<void> {
  if (await isRunFolder(source)) {
    const run = await describeRun(source)
    const policy = run.policy === null ? null : await inspectPolicy(run.policy)
    if (flags.json) {
      printJson({ ...run, policy: policy && jsonOf(policy) })
      return
    }
    print(table(runRows(run)))
    if (policy) print(`\n${table(policyRows(policy))}`)
    return
  }
  const report = await inspectPolicy(source, { revision: flags.revision })
  if (flags.json) printJson(jsonOf(report))
  else print(table(policyRows(report)))
}

type Row = [name: string, value: string]

function table(rows: readonly Row[]): string {
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}

/** Typed arrays are lists in JSON. */
function jsonOf(report: PolicyReport) {
  const { ropeFactors, ...config } = report.config
  return { ...report, config: { ...config, ...(ropeFactors && { ropeFactors: [...ropeFactors] }) } }
}

function policyRows(report: PolicyReport): Row[] {
  const { config, files, memory, tokenizer, dtype } = report
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  const types = Object.entries(report.tensorTypes).map(([type, count]) => `${count} ${type}`)
  const heads = `${config.numHeads} heads, ${config.numKvHeads} for keys and values, of ${config.headDim}`
  const describedTokenizer = tokenizer
    ? `${tokenizer.vocabSize} tokens, ${tokenizer.chatTemplate ? 'with' : 'without'} chat template, ${tokenizer.addsBos ? 'adds BOS' : 'no BOS'}`
    : 'none: text methods are ERR_TOKENIZER'
  return [
    ['policy', `${report.directory}${report.revision ? ` (revision ${report.revision})` : ''}`],
    ['files', `${report.format}, ${files.length} of ${size(bytes)} (tensors: ${types.join(', ')})`],
    ['model', `${config.architecture}, ${millions(report.parameters)} parameters`],
    ['layers', `${config.numLayers}, hidden ${config.hiddenSize}, ffn ${config.intermediateSize}, ${heads}`],
    ['vocabulary', `${config.vocabSize}${config.tieWordEmbeddings ? ', embeddings tied' : ''}`],
    ['context', `${config.maxPositions} tokens`],
    ['tokenizer', describedTokenizer],
    [
      'ends at',
      [...report.endTokenIds, ...report.stopStrings.map((stop) => `'${stop}'`)].join(', ') || 'nothing',
    ],
    ['computes', `in ${dtype} on ${report.device}, ${report.threads} threads, unless told otherwise`],
    ['needs', `${size(memory.weights[dtype])} to generate, and ${size(memory.perToken[dtype])} a token`],
    ['', `${size(memory.training[dtype])} to train, and activations`],
    ['available', size(memory.available)],
  ]
}

function runRows({ directory, step, settings, lastRecord, checkpoints, policy }: RunReport): Row[] {
  const most = settings.maxSteps === undefined ? '' : ` of ${settings.maxSteps}`
  const meanOf = (name: string) => {
    const value = (lastRecord?.[name] as { mean?: unknown } | undefined)?.mean
    return typeof value === 'number' ? value.toFixed(3) : '-'
  }
  return [
    ['run', directory],
    ['steps', `${step}${most}`],
    ['last step', lastRecord ? `reward ${meanOf('reward')}, format ${meanOf('format')}` : 'none on record'],
    ['checkpoints', checkpoints.join(', ') || 'none'],
    ['policy', policy ?? 'not written yet'],
  ]
}

function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let value = bytes
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`
}

function millions(count: number): string {
  return count < 1e5 ? String(count) : `${(count / 1e6).toFixed(1)} M`
}
