/** A test file of test/native, and the titles that are run of it; `*` stands for anything. */
export interface Check {
  file: string
  titles: string[]
}

/** One change to the CUDA sources that must not go unnoticed. */
export interface Mutant {
  /** Begins with the family. */
  name: string
  /** Below native/ops. */
  file: string
  /** For a header: the sources that are compiled with it. */
  sources?: string[]
  /** What is replaced; occurs exactly once in the file. */
  text: string
  replacement: string
  /** What is wrong afterwards. */
  breaks: string
  /** The first that fails ends the run: the likeliest comes first. */
  checks: Check[]
}

/** Mutants of one file. */
export function mutantsOf(
  shared: Pick<Mutant, 'file' | 'sources' | 'checks'>,
  mutants: Record<string, [breaks: string, text: string, replacement: string, checks?: Check[]]>,
): Mutant[] {
  return Object.entries(mutants).map(([name, [breaks, text, replacement, checks]]) => ({
    ...shared,
    ...{ name, breaks, text, replacement },
    checks: checks ?? shared.checks,
  }))
}
