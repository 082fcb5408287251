-- What channels keep for all nodes: small, exchanged as a whole, and only by whoever knows what is there.

create table lunar.state (
    name text primary key,
    value bytea not null
);

create function lunar.set_state(p_name text, p_value bytea, p_expected bytea) returns boolean
language plpgsql as $$
begin
    if p_expected is null then
        insert into lunar.state values (p_name, p_value) on conflict (name) do nothing;
    else
        update lunar.state set value = p_value where name = p_name and value = p_expected;
    end if;
    return found;
end $$;
