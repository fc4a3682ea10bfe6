/** Builds the emulated addon with one source changed, and runs tests on it, in a scratch copy of the repository. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import type { Check, Mutant } from './mutant.ts'

export const root = fileURLToPath(new URL('../../', import.meta.url))

export interface Verdict {
  outcome: 'caught' | 'survived' | 'invalid'
  /** What told: a fault that the emulation reported, values, a crash or the time limit. */
  sign: string
  /** The test that failed first, or what the compiler said. */
  by: string
}

// Seconds of processor time, so that a busy machine is no hang.
const processorLimit = 120
const wallLimit = 600
const survived: Verdict = { outcome: 'survived', sign: '', by: '' }

interface Compilation {
  directory: string
  command: string
  file: string
}

/** Below native/ops, as mutants name it. */
const sourceOf = ({ file }: Compilation) => path.relative(path.join(root, 'native', 'ops'), file)

export class Workshop {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'ssrl-mutation-'))
  readonly #tree = path.join(this.#folder, 'ssrl')
  readonly #compilations: Compilation[]

  constructor() {
    const parts = (...names: string[]) => path.join(this.#tree, ...names)
    for (const name of ['lib', 'test', 'package.json', 'ava.config.js', 'tsconfig.json']) {
      cpSync(path.join(root, name), parts(name), { recursive: true })
    }
    mkdirSync(parts('build', 'Release'), { recursive: true })
    for (const name of ['node_modules', 'build/Release/ssrl.node']) {
      symlinkSync(path.join(root, name), parts(name))
    }
    const shared = path.join(root, '..', 'shared')
    if (existsSync(shared)) symlinkSync(shared, path.join(this.#folder, 'shared'))
    const commands = readFileSync(path.join(root, 'build', 'compile_commands.json'), 'utf8')
    this.#compilations = (JSON.parse(commands) as Compilation[]).filter(({ command }) =>
      /CMakeFiles\/(ssrl_common|ssrl-emulated)\.dir/.test(command),
    )
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Whether the mutant's checks notice it. */
  async try(mutant: Mutant): Promise<Verdict> {
    const content = readFileSync(path.join(root, 'native', 'ops', mutant.file), 'utf8')
    const error = await this.#build(mutant.sources ?? [mutant.file], {
      [mutant.file]: mutate(mutant, content),
    })
    if (error !== undefined) return { outcome: 'invalid', sign: 'compiler', by: error }
    for (const check of mutant.checks) {
      const verdict = await this.#run(check)
      if (verdict.outcome !== 'survived') return verdict
    }
    return survived
  }

  /** The checks on unchanged sources, which are compiled as the mutants are. */
  async control(sources: string[], checks: Check[]): Promise<Verdict> {
    const error = await this.#build(sources, {})
    if (error !== undefined) return { outcome: 'invalid', sign: 'compiler', by: error }
    for (const check of checks) {
      const verdict = await this.#run(check)
      if (verdict.outcome !== 'survived') return verdict
    }
    return survived
  }

  /** Compiles the sources with the changed files in front of the others, and links them with all other objects. */
  async #build(sources: string[], changed: Record<string, string>): Promise<string | undefined> {
    const overlay = path.join(this.#folder, 'native')
    rmSync(overlay, { recursive: true, force: true })
    mkdirSync(overlay)
    for (const [file, content] of Object.entries(changed)) {
      const to = path.join(overlay, 'ops', file)
      mkdirSync(path.dirname(to), { recursive: true })
      writeFileSync(to, content)
    }
    const objects: string[] = []
    for (const compilation of this.#compilations) {
      const { directory, command } = compilation
      const object = command.match(/ -o (\S+)/)![1]!
      const source = sourceOf(compilation)
      if (!sources.includes(source)) {
        objects.push(path.resolve(directory, object))
        continue
      }
      const to = path.join(this.#folder, `${objects.length}.o`)
      objects.push(to)
      const from = source in changed ? path.join(overlay, 'ops', source) : compilation.file
      const own = command
        .replace(` -o ${object}`, ` -o ${to}`)
        .replace(` -c ${compilation.file}`, ` -c ${from}`)
        .replace(' -I', ` -I${overlay} -I`)
      // ccache would not see that a header is now found in another place.
      const env = { CCACHE_DISABLE: '1' }
      const { exitCode, stderr } = await execa('bash', ['-c', own], { cwd: directory, env, reject: false })
      if (exitCode !== 0) return stderr.split('\n').find((line) => line.includes('error')) ?? stderr
    }
    const missing = sources.filter((source) => !this.#compilations.some((each) => sourceOf(each) === source))
    if (missing.length > 0) throw new Error(`Not compiled into the emulated addon: ${missing.join(', ')}`)
    await this.#link(objects)
    return undefined
  }

  async #link(objects: string[]): Promise<void> {
    const cache = readFileSync(path.join(root, 'build', 'CMakeCache.txt'), 'utf8')
    const cached = (name: string) => cache.match(new RegExp(`^${name}:\\w+=(.*)$`, 'm'))![1]!
    const libraries = ['SSRL_DNNL_LIBRARY', 'SSRL_HWY_LIBRARY', 'SSRL_BOOST_CONTEXT'].map(cached)
    const addon = path.join(this.#tree, 'build', 'Release', 'ssrl-emulated.node')
    // A process that has the old one loaded must not see the new one.
    rmSync(addon, { force: true })
    await execa(cached('CMAKE_CXX_COMPILER'), [
      ...['-shared', '-o', addon, ...objects, ...libraries],
      ...['-fopenmp', '-lpthread'],
    ])
  }

  async #run({ file, titles }: Check): Promise<Verdict> {
    const args = ['--tap', '--fail-fast', ...titles.map((title) => `--match=${title}`)]
    const command = `ulimit -t ${processorLimit}; exec node_modules/.bin/ava "$@"`
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('AVA')))
    const result = await execa('bash', ['-c', command, 'bash', ...args, `test/native/${file}.test.ts`], {
      cwd: this.#tree,
      env,
      extendEnv: false,
      reject: false,
      all: true,
      timeout: 1000 * wallLimit,
    })
    const output = result.all ?? ''
    if (/^# tests 0$/m.test(output) || /Couldn.t find any matching tests/.test(output)) {
      throw new Error(`No test of ${file} has a title like ${titles.join(' or ')}\n${output}`)
    }
    if (result.exitCode === 0) return survived
    const failed = output.match(/^not ok \d+ - (.*)$/m)?.[1]
    return {
      outcome: 'caught',
      sign: result.timedOut ? 'time limit' : signOf(output),
      by: `${file}: ${failed ?? 'the process ended'}`,
    }
  }
}

function mutate({ name, file, text, replacement }: Mutant, content: string): string {
  const count = content.split(text).length - 1
  if (count !== 1) {
    throw new Error(
      `The mutant ${name} replaces a text that must occur once in ${file}, and occurs ${count} times:\n${text}`,
    )
  }
  // As a function: a replacement may hold what `replace` takes for a pattern. What the CPU compiles too must not be merged
  // with its unchanged copy by the linker.
  return content
    .replace(text, () => replacement)
    .replace(/^(#define SSRL_\w*DEVICE) inline$/m, '$1 static inline')
}

export const assertApplies = (mutant: Mutant): void =>
  void mutate(mutant, readFileSync(path.join(root, 'native', 'ops', mutant.file), 'utf8'))

function signOf(output: string): string {
  const fault = output.match(
    /(Early read|Unset shared memory|Race|Divergent collective|Divergent barrier|Deadlock|Out of range):?/,
  )
  if (fault) return fault[1]!.toLowerCase()
  if (/was touched by the host/.test(output)) return 'memory of nobody'
  if (/SIGXCPU|SIGKILL|timed out/i.test(output)) return 'time limit'
  if (/SIG[A-Z]+|exited (due to|with)/.test(output)) return 'crash'
  return 'values'
}
