export interface Repeats {
  warmUps: number
  repeats: number
}

/** Seconds of each repetition, after the warm-ups. */
export async function timed(run: () => Promise<unknown>, { warmUps, repeats }: Repeats): Promise<number[]> {
  for (let i = 0; i < warmUps; i++) await run()
  const seconds: number[] = []
  for (let i = 0; i < repeats; i++) {
    const start = performance.now()
    await run()
    seconds.push((performance.now() - start) / 1000)
  }
  return seconds
}
