import { createInterface } from 'node:readline'

export interface QuestionOptions {
  /** Whether somebody types; else questions come one a line. */
  isTerminal: boolean
  /** Ctrl-C while a question is awaited; true to leave. */
  onInterrupt: () => boolean
}

/** Questions one after another until there are no more, blank lines left out. */
export async function* readQuestions(options: QuestionOptions): AsyncGenerator<string> {
  if (!options.isTerminal) {
    for await (const line of createInterface({ input: process.stdin })) if (line.trim() !== '') yield line
    return
  }
  let history: string[] = []
  for (;;) {
    const typed = await readTyped(history, options)
    if (typed === null) return
    history = typed.history
    if (typed.line.trim() !== '') yield typed.line
  }
}

/**
 * One line from the terminal, null at the end of input. The reader goes away with it: between questions Ctrl-C must be a
 * signal, and a reader would take it for a key.
 */
function readTyped(
  history: string[],
  { onInterrupt }: QuestionOptions,
): Promise<{ line: string; history: string[] } | null> {
  return new Promise((resolve) => {
    const { stdin: input, stderr: output } = process
    const reader = createInterface({ input, output, terminal: true, history: [...history] })
    let lines = history
    reader.on('history', (changed: string[]) => {
      lines = [...changed]
    })
    reader.on('SIGINT', () => {
      if (onInterrupt()) reader.close()
      else reader.prompt()
    })
    reader.on('line', (line) => {
      resolve({ line, history: lines })
      reader.close()
    })
    reader.on('close', () => resolve(null))
    reader.setPrompt('> ')
    reader.prompt()
  })
}
