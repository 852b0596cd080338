;; Says something and traps.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "these are my last words\n")
  ;; One iovec: where the words are, and how many bytes.
  (data (i32.const 0) "\40\00\00\00\18\00\00\00")
  (func (export "_start")
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 32)))
    unreachable))
