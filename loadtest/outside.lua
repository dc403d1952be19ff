-- For wrk: asks for the paths in the file that PHONES names, one after the other.
function init()
  paths, at = {}, 0
  for path in io.lines(os.getenv("PHONES")) do
    paths[#paths + 1] = path
  end
end

function request()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
