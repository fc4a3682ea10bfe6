import { readdir, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command, Option } from 'commander'
import { SsrlError } from '../errors.ts'
import { exportGguf, type GgufDtype, ggufDtypes, type GgufExport as Written } from '../policy/export.ts'
import { Policy } from '../policy/policy.ts'
import { note, print, printJson } from './common.ts'
import { onInterrupt } from './interrupt.ts'

interface ExportFlags {
  policy: string
  output: string
  format?: 'safetensors' | 'gguf'
  dtype: GgufDtype
  json?: boolean
}

/** `ssrl export`: a policy's weights for other software. */
export function exportCommand(): Command {
  return new Command('export')
    .description(
      'Write a policy as a folder in Hugging Face layout (config, tokenizer, safetensors), or as one GGUF file with tokenizer and chat template.',
    )
    .requiredOption('-p, --policy <source>', 'a model folder, a .gguf file, or org/name on the hub')
    .requiredOption('-o, --output <path>', 'the folder, or the .gguf file; what is there is replaced')
    .addOption(
      new Option(
        '--format <name>',
        'format of the weights (default: gguf for an output that ends in .gguf, else safetensors)',
      ).choices(['safetensors', 'gguf']),
    )
    .addOption(
      new Option(
        '--dtype <type>',
        'type of the matrices; q8_0 for gguf only, where rows of another length than a multiple of 32 become f16',
      )
        .choices([...ggufDtypes])
        .default('bf16'),
    )
    .option('--json', 'print what was written as JSON')
    .action(exportPolicy)
}

async function exportPolicy(flags: ExportFlags): Promise<void> {
  const { output, dtype } = flags
  const format = flags.format ?? (output.endsWith('.gguf') ? 'gguf' : 'safetensors')
  if (format === 'safetensors' && dtype === 'q8_0') {
    throw new SsrlError('ERR_INVALID_ARG', 'Expected f32, f16 or bf16 for --dtype: q8_0 needs --format gguf')
  }
  const interrupt = onInterrupt()
  try {
    await using policy = await Policy.load(flags.policy, { dtype: 'f32', signal: interrupt.signal })
    const write = format === 'gguf' ? writeGguf : writeFolder
    const written = await write(policy, flags, interrupt.signal)
    if (flags.json) printJson({ format, dtype, ...written })
    else print(`${written.path} (${(written.bytes / 1e6).toFixed(1)} MB, ${describeTypes(written.types)})`)
  } finally {
    interrupt.dispose()
  }
}

async function writeGguf(
  policy: Policy,
  { output, dtype }: ExportFlags,
  signal: AbortSignal,
): Promise<Written> {
  const path = output.endsWith('.gguf') ? output : join(output, 'model.gguf')
  const written = await exportGguf(policy, path, { dtype, signal })
  const changed = dtype === 'q8_0' ? (written.types.F16 ?? 0) : 0
  if (changed > 0)
    note(`Rows that are no multiple of 32 values: ${changed} matri${changed === 1 ? 'x is' : 'ces are'} f16`)
  return written
}

async function writeFolder(
  policy: Policy,
  { output, dtype }: ExportFlags,
  signal: AbortSignal,
): Promise<Written> {
  await policy.save(output, { dtype: dtype as Exclude<GgufDtype, 'q8_0'>, signal })
  const names = (await readdir(output)).filter((name) => name.endsWith('.safetensors'))
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(output, name))).size))
  const bytes = sizes.reduce((sum, size) => sum + size, 0)
  return { path: resolve(output), bytes, types: { [dtype.toUpperCase()]: policy.parameters().length } }
}

function describeTypes(types: Record<string, number>): string {
  return Object.entries(types)
    .map(([type, count]) => `${count} tensors ${type}`)
    .join(', ')
}
