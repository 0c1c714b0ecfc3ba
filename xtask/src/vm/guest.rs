//! One emulated machine, from its start to its end: it ends by itself, or at a line that promises nothing good, or when
//! its time is over. Without a device: the tests make their own network in it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::console::{Console, Heard};
use super::kernel::Kernel;
use super::payload::{Payload, pack};

/// Several times what it takes on a machine with nothing else to do.
const DEADLINE: Duration = Duration::from_secs(5_400);
/// `panic=-1` and `-no-reboot`: a kernel that panics ends the emulator.
const KERNEL_LINE: &str = "console=ttyS0 quiet loglevel=4 panic=-1 rcupdate.rcu_cpu_stall_timeout=60";

/// Boots a kernel with the payload, and returns what was heard on its console.
pub(super) fn run(kernel: &Kernel, payload: &Payload, lockdown: Option<&str>) -> Result<Console> {
    let image = initramfs(kernel, payload)?;
    let mut emulator = Command::new("qemu-system-x86_64");
    // Several threads of the emulator panic kernels from 6.12 on, in the dispatcher of XDP programs.
    emulator.args(["-accel", "tcg,thread=single", "-cpu", "max,la57=off", "-smp", "2", "-m", "1G"]);
    emulator.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    let lockdown = lockdown.map(|lockdown| format!(" lockdown={lockdown}")).unwrap_or_default();
    let line = format!("{KERNEL_LINE}{lockdown}");
    emulator.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(image).args(["-append", &line]);
    eprintln!("vm: {}: starting the emulator", kernel.version);
    let child = emulator.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = child.context("cannot start qemu-system-x86_64")?;
    let heard = listen(&mut child, kernel);
    // It has ended, or has to: in either case, this only fails where there is nothing to do.
    let _ = child.kill();
    child.wait()?;
    heard
}

/// The payload and the modules of this kernel.
fn initramfs(kernel: &Kernel, payload: &Payload) -> Result<std::path::PathBuf> {
    let root = kernel.directory.join("root");
    let modules = root.join("modules");
    fs::create_dir_all(&modules)?;
    for module in fs::read_dir(kernel.modules())?.flatten() {
        fs::copy(module.path(), modules.join(module.file_name()))?;
    }
    let archive = kernel.directory.join("modules.cpio");
    pack(&root, &archive)?;
    let image = kernel.directory.join("initramfs");
    let both = [fs::read(&payload.archive)?, fs::read(&archive)?].concat();
    fs::write(&image, both).with_context(|| format!("cannot write {}", image.display()))?;
    Ok(image)
}

fn listen(child: &mut Child, kernel: &Kernel) -> Result<Console> {
    let path = kernel.directory.join("console.log");
    let mut log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let lines = lines(child)?;
    let start = Instant::now();
    let mut console = Console::default();
    loop {
        let line = match lines.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Ok(console),
            Err(RecvTimeoutError::Timeout) => {
                bail!("not ready after {} s; it said so far: {}", DEADLINE.as_secs(), path.display())
            }
        };
        writeln!(log, "{line}")?;
        match console.hear(&line, start.elapsed()) {
            Heard::Nothing => {}
            Heard::Worth(words) => eprintln!("vm: {}: {words}", kernel.version),
            Heard::Broken => bail!("the kernel broke: `{line}`; the rest is in {}", path.display()),
        }
    }
}

/// What the emulator says, line by line, on a thread of its own: reading has no deadline.
fn lines(child: &mut Child) -> Result<Receiver<String>> {
    let mut output = BufReader::new(child.stdout.take().context("the emulator has no output")?);
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut line = vec![];
        while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
