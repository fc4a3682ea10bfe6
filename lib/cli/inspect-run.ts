import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** What a run's folder says of the run. */
export interface RunReport {
  kind: 'run'
  directory: string
  /** as the run was started with */
  settings: Record<string, unknown>
  /** last step on record; 0 before the first */
  step: number
  lastRecord: Record<string, unknown> | null
  checkpoints: string[]
  /** the final policy's folder, once there is one */
  policy: string | null
}

/** A run's folder has records of steps. */
export async function isRunFolder(directory: string): Promise<boolean> {
  return exists(join(directory, 'steps.jsonl'))
}

export async function describeRun(directory: string): Promise<RunReport> {
  const records = (await readFile(join(directory, 'steps.jsonl'), 'utf8')).trimEnd().split('\n')
  const lastRecord = parse(records.at(-1) ?? '')
  const settings = parse(await readFile(join(directory, 'config.json'), 'utf8').catch(() => '')) ?? {}
  const names = await readdir(join(directory, 'checkpoints')).catch(() => [] as string[])
  const policy = join(directory, 'policy')
  return {
    kind: 'run',
    directory,
    settings,
    step: typeof lastRecord?.step === 'number' ? lastRecord.step : 0,
    lastRecord,
    checkpoints: names.filter((name) => !name.startsWith('.')).sort(),
    policy: (await exists(join(policy, 'config.json'))) ? policy : null,
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/** A crash may have cut the last line: then nothing is known of it. */
function parse(text: string): Record<string, unknown> | null {
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch {
    return null
  }
}
