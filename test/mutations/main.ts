/**
 * `npm run test:mutations [-- NAME...]`: changes the CUDA sources one by one, each change a mistake that somebody could
 * make, and demands that the tests of the emulated device notice; without names all of them. What is known of unchanged
 * sources and tests stands in bench/cuda-mutations.csv and is not tried again.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { mutants } from './all.ts'
import type { Check, Mutant } from './mutant.ts'
import { assertApplies, root, type Verdict, Workshop } from './workshop.ts'

const record = path.join(root, 'bench', 'cuda-mutations.csv')
const columns = ['name', 'file', 'breaks', 'outcome', 'sign', 'caught_by', 'seconds', 'of'] as const
type Row = Record<(typeof columns)[number], string>

const nothing = 'nothing: unchanged'
const quoted = (value: string) => (/[",]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value)

function readRecord(): Map<string, Row> {
  if (!existsSync(record)) return new Map()
  const lines = readFileSync(record, 'utf8').trimEnd().split('\n').slice(1)
  return new Map(
    lines.map((line) => {
      const cells = Array.from(line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g), ([, long, short]) =>
        long === undefined ? short! : long.replaceAll('""', '"'),
      )
      const row = Object.fromEntries(columns.map((column, i) => [column, cells[i]!])) as Row
      return [row.name, row]
    }),
  )
}

/** In the order of the mutants; those that are no more are dropped. */
function writeRecord(rows: Map<string, Row>, names: string[]): void {
  const lines = names.flatMap((name) => rows.get(name) ?? [])
  const cells = lines.map((row) => columns.map((column) => quoted(row[column])).join(','))
  writeFileSync(record, `${[columns.join(','), ...cells].join('\n')}\n`)
}

/** Of the change, of what is compiled for it, and of the tests that look at it. */
function fingerprint(change: unknown, sources: string[], checks: Check[]): string {
  const hash = createHash('sha256').update(JSON.stringify(change))
  const native = sources.map((source) => path.join(root, 'native', 'ops', source))
  const tests = checks.map(({ file }) => path.join(root, 'test', 'native', `${file}.test.ts`))
  for (const file of [...native, ...tests]) hash.update(readFileSync(file))
  return hash.digest('hex').slice(0, 12)
}

/** For each file that is changed: its sources as they are, and all checks of its mutants. */
function controlOf(file: string): { name: string; sources: string[]; checks: Check[] } {
  const group = mutants.filter((mutant) => mutant.file === file)
  const titles: Record<string, Set<string>> = {}
  for (const check of group.flatMap(({ checks }) => checks)) {
    titles[check.file] ??= new Set()
    for (const title of check.titles) titles[check.file]!.add(title)
  }
  return {
    name: `control of ${file}`,
    sources: [...new Set(group.flatMap(({ sources }) => sources ?? [file]))],
    checks: Object.entries(titles).map(([test, set]) => ({ file: test, titles: [...set] })),
  }
}

const controls = (of: Mutant[]) => [...new Set(of.map(({ file }) => file))].map(controlOf)

async function main(wanted: string[]): Promise<number> {
  for (const mutant of mutants) assertApplies(mutant)
  const chosen = mutants.filter(
    ({ name }) => wanted.length === 0 || wanted.some((prefix) => name.startsWith(prefix)),
  )
  if (chosen.length === 0) throw new Error(`No mutant is called ${wanted.join(' or ')}`)
  const rows = readRecord()
  const order = [...controls(mutants), ...mutants].map(({ name }) => name)
  using workshop = new Workshop()

  const attempt = async (
    { name, file, breaks }: Pick<Mutant, 'name' | 'file' | 'breaks'>,
    of: string,
    work: () => Promise<Verdict>,
  ) => {
    const known = rows.get(name)
    if (known?.of === of) return known.outcome
    const started = performance.now()
    const verdict = await work()
    const { sign, by } = verdict
    const outcome = breaks === nothing && verdict.outcome === 'survived' ? 'passed' : verdict.outcome
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    // Read again, as others may run beside this one.
    writeRecord(
      readRecord().set(name, { name, file, breaks, outcome, sign, caught_by: by, seconds, of }),
      order,
    )
    console.log(`${outcome.padEnd(8)} ${name} (${seconds} s)${sign && `: ${sign}, ${by}`}`)
    return outcome
  }

  for (const { name, sources, checks } of controls(chosen)) {
    const outcome = await attempt(
      { name, file: sources.join(' '), breaks: nothing },
      fingerprint([sources, checks], sources, checks),
      () => workshop.control(sources, checks),
    )
    if (outcome !== 'passed') throw new Error(`The ${name} fails on unchanged sources: ${outcome}`)
  }
  const outcomes: string[] = []
  for (const mutant of chosen) {
    outcomes.push(
      await attempt(
        mutant,
        fingerprint(mutant, [mutant.file, ...(mutant.sources ?? [])], mutant.checks),
        () => workshop.try(mutant),
      ),
    )
  }
  const count = (outcome: string) => outcomes.filter((each) => each === outcome).length
  console.log(`${count('caught')} of ${chosen.length} caught`)
  if (count('invalid') > 0) console.log(`${count('invalid')} do not compile and prove nothing`)
  return count('invalid') > 0 || count('caught') < 0.95 * chosen.length ? 1 : 0
}

process.exitCode = await main(process.argv.slice(2))
