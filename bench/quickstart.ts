import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa, type Options } from 'execa'
import type { Result } from './job.ts'

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** The main job of `npm run quickstart`, without its set-up. */
export async function quickstart(threads: number): Promise<Result> {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-bench-'))
  const args = [
    `--import=${here('../node_modules/tsx/dist/loader.mjs')}`,
    here('../lib/cli/main.ts'),
    'quickstart',
    '--json',
    ...['--output', path.join(folder, 'run')],
  ]
  try {
    const start = performance.now()
    const { peak } = await runWatched(process.execPath, args, { env: { SSRL_THREADS: String(threads) } })
    return { values: [(performance.now() - start) / 1000], peak, version: `Node ${process.versions.node}` }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Runs a program that can't say how much memory it took; bytes, from what the system says while it runs. */
export async function runWatched(
  program: string,
  args: string[],
  options: Options = {},
): Promise<{ stdout: string; peak: number }> {
  const child = execa(program, args, options)
  let peak = 0
  const look = async () => {
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8').catch(() => '')
    peak = Math.max(peak, Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1] ?? 0) * 1024)
  }
  const timer = setInterval(look, 20)
  try {
    return { stdout: String((await child).stdout), peak }
  } finally {
    clearInterval(timer)
  }
}
