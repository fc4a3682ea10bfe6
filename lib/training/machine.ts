import { loadNative } from '../native.ts'

/** What decides the bits of a result: another kind of CPU or library may round differently. */
export interface MachineMark {
  cpu: string
  dnnl: string
  highwayTarget: string
  build: string
}

export function describeMachine(): MachineMark {
  const { cpu, dnnl, highwayTarget, build } = loadNative().environment()
  return { cpu, dnnl, highwayTarget, build }
}

/** What differs, in words; none when the two would compute the same bits. */
export function machineDifferences(stored: MachineMark, now: MachineMark): string[] {
  return (Object.keys(now) as (keyof MachineMark)[])
    .filter((name) => stored[name] !== now[name])
    .map((name) => `${name} (checkpoint: ${stored[name]}, here: ${now[name]})`)
}

/** Bytes: resident memory of the process, and what the engine holds. */
export function memoryNow(): { resident: number; engine: number } {
  return { resident: process.memoryUsage.rss(), engine: loadNative().environment().memoryHeld }
}
