// What the engine reports, and what it takes: see engine/engine.go and wasm/main.go.

export type Stage = 'server' | 'request' | 'queue' | 'store' | 'handler' | 'work' | 'synced' | 'log' | 'error'

export interface Event {
  seq: number
  at: number // milliseconds of virtual time
  stage: Stage
  kind: string
  key?: string
  version?: string
  old?: string
  handler?: string
  request?: number
  bytes?: number
  text?: string
  pod?: unknown
}

export interface HandlerSettings { Name: string; Resync?: number; Slow?: number; Mutate?: boolean; Panic?: boolean }

export interface Settings {
  Resync: number
  RunEvery: number
  WatchList: boolean
  Trim?: boolean
  Labels?: string
  Handlers: HandlerSettings[]
  Worker?: { Takes: number; Fails: number }
}

export interface Fault { Refuse?: boolean; Silent?: boolean; Code?: number; RetryAfter?: number; SwallowBookmarks?: boolean }

export type Command =
  | { Do: 'start'; Settings: Settings }
  | { Do: 'stop' | 'expire' | 'again' }
  | { Do: 'create'; Name: string; Count?: number; Labels?: Record<string, string>; Hold?: boolean }
  | { Do: 'label'; Name: string; Labels: Record<string, string> }
  | { Do: 'delete'; Name: string; Grace?: number }
  | { Do: 'release' | 'remove' | 'own'; Name: string }
  | { Do: 'break'; Fault: Fault }
  | { Do: 'end'; Reset?: boolean }
  | { Do: 'handler'; Handler: HandlerSettings }

// At is a command and the virtual time at which it is given.
export type At = [number, Command]

export type ToWorker =
  | { type: 'load'; module: WebAssembly.Module; exec: string; script: At[]; until: number; detector: boolean }
  | { type: 'command'; command: Command }
  | { type: 'pace'; speed: number }
  | { type: 'step' }
  | { type: 'to'; time: number } // as fast as it goes

export type FromWorker =
  | { type: 'seen'; events: Event[]; now: number; ended: boolean; memory: number; store?: Record<string, string> }
  | { type: 'failed'; text: string }
